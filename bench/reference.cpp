#include "bench/reference.h"

#include "bench/net_shapes.h"
#include "engine/ops/random.h"
#include "engine/random.h"

namespace nf::bench {

Tensor random_tensor(const ContextPtr& context, const Shape& shape) {
  return uniform(context, shape, -1, 1, {random_key(0, Purpose::test)});
}

ReferenceProduct::ReferenceProduct(const ContextPtr& context, const LinearProblem& problem)
    : problem_(problem),
      x_(random_tensor(context, {problem.n, problem.i})),
      w_(random_tensor(context, {problem.o, problem.i})),
      bias_(random_tensor(context, {problem.o})),
      y_(Tensor::empty(context, {problem.n, problem.o})),
      scratch_(context,
               context->backend().linear_workspace(problem, Pass::forward, GradMode::overwrite)) {}

void ReferenceProduct::run() {
  y_.backend().linear_forward(problem_, x_.view(), w_.view(), bias_.view(), y_.mutable_view(),
                              scratch_);
}

double ReferenceProduct::flops() const { return bench::flops(problem_); }

ReferenceCopy::ReferenceCopy(const ContextPtr& context, std::int64_t bytes)
    : from_(Tensor::full(context, {bytes / 4}, 1.0)), to_(Tensor::empty(context, from_.shape())) {}

void ReferenceCopy::run() { to_.backend().copy(to_.mutable_view(), from_.view()); }

std::int64_t reference_side(DeviceKind device) { return device == DeviceKind::cuda ? 4096 : 1024; }

}  // namespace nf::bench
