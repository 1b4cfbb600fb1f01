#include "kernels/optimizer.cuh"

#include <string>

namespace nf::NF_TARGET {
namespace {

using namespace optimizer;

// A kernel's parameters are at most 4096 bytes; what follows a list takes some.
static_assert(sizeof(TensorList<AdamWTensor>) <= 4000);

constexpr std::int64_t kMostChunks = 1 << 30;  // of a launch; blocks have 31 bits

std::int64_t chunks_of(std::int64_t size) { return (size + kChunk - 1) / kChunk; }

/// Calls run(list, its chunks, chunks before it) for all tensors that are not empty.
template <typename Tensor, typename Run>
void for_lists(const Tensor* tensors, std::int64_t count, const Run& run) {
  TensorList<Tensor> list{};
  std::int64_t chunks = 0, before = 0;
  const auto flush = [&] {
    if (list.count > 0) run(list, chunks, before);
    before += chunks;
    chunks = 0;
    list.count = 0;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t more = chunks_of(tensors[i].size);
    if (more == 0) continue;
    if (more > kMostChunks)
      throw KernelError("optimizer: a tensor must have at most 2^42 elements, got " +
                        std::to_string(tensors[i].size));
    if (list.count == kMostTensors || chunks + more > kMostChunks) flush();
    list.tensors[list.count++] = tensors[i];
    chunks += more;
    list.first_chunk[list.count] = static_cast<std::int32_t>(chunks);
  }
  flush();
}

}  // namespace

void sgd(Stream stream, const SgdTensor* tensors, std::int64_t count, const SgdOptions& options) {
  for (std::int64_t i = 0; i < count; ++i)
    if (tensors[i].momentum == nullptr && options.momentum != 0.0)
      throw KernelError("sgd: momentum " + std::to_string(options.momentum) +
                        " needs a buffer, tensor " + std::to_string(i) + " has none");
  const SgdRule rule{.momentum = static_cast<float>(options.momentum),
                     .decay = static_cast<float>(options.weight_decay),
                     .nesterov = options.nesterov,
                     .first = options.first};
  const UpdateScalars scalars = sgd_scalars(options.learning_rate);
  for_lists(tensors, count,
            [&](const TensorList<SgdTensor>& list, std::int64_t chunks, std::int64_t) {
              launch("sgd", sgd_kernel, {chunks}, {kThreads}, 0, stream, list, rule, scalars,
                     options.source);
            });
}

void adamw(Stream stream, const AdamWTensor* tensors, std::int64_t count,
           const AdamWOptions& options) {
  if (options.step < 1)
    throw KernelError("adamw: steps are counted from 1, got " + std::to_string(options.step));
  const UpdateScalars scalars = adamw_scalars(options.learning_rate, options.beta1, options.beta2,
                                              options.weight_decay, options.step);
  const AdamWRule rule{.beta1 = static_cast<float>(options.beta1),
                       .rest1 = static_cast<float>(1.0 - options.beta1),
                       .beta2 = static_cast<float>(options.beta2),
                       .rest2 = static_cast<float>(1.0 - options.beta2),
                       .eps = static_cast<float>(options.eps)};
  for_lists(tensors, count,
            [&](const TensorList<AdamWTensor>& list, std::int64_t chunks, std::int64_t) {
              launch("adamw", adamw_kernel, {chunks}, {kThreads}, 0, stream, list, rule, scalars,
                     options.source);
            });
}

std::int64_t gradient_norm_workspace(const GradientTensor* tensors, std::int64_t count) {
  std::int64_t chunks = 0;
  for (std::int64_t i = 0; i < count; ++i) chunks += chunks_of(tensors[i].size);
  return (chunks > 0 ? chunks : 1) * static_cast<std::int64_t>(sizeof(double));
}

void gradient_norm(Stream stream, const GradientTensor* tensors, std::int64_t count, float* norm,
                   void* workspace) {
  auto* partials = static_cast<double*>(workspace);
  std::int64_t all = 0;
  for_lists(tensors, count,
            [&](const TensorList<GradientTensor>& list, std::int64_t chunks, std::int64_t before) {
              launch("gradient_squares", squares_kernel, {chunks}, {kThreads}, 0, stream, list,
                     partials + before);
              all = before + chunks;
            });
  launch("gradient_norm", norm_kernel, {1}, {kThreads}, 0, stream, partials, all, norm);
}

void clip_gradients(Stream stream, const GradientTensor* tensors, std::int64_t count,
                    const float* norm, float max_norm) {
  for_lists(tensors, count,
            [&](const TensorList<GradientTensor>& list, std::int64_t chunks, std::int64_t) {
              launch("clip_gradients", clip_kernel, {chunks}, {kThreads}, 0, stream, list, norm,
                     max_norm);
            });
}

void gradients_finite(Stream stream, const GradientTensor* tensors, std::int64_t count,
                      std::int32_t* flag) {
  for_lists(tensors, count,
            [&](const TensorList<GradientTensor>& list, std::int64_t chunks, std::int64_t) {
              launch("gradients_finite", finite_kernel, {chunks}, {kThreads}, 0, stream, list,
                     flag);
            });
}

}  // namespace nf::NF_TARGET
