// Operators and steps whose speed is tested: each is something to run again and again.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/backend.h"
#include "engine/context.h"

namespace nf::bench {

struct Workload {
  std::function<void()> run;
  double flops = 0.0;      // where it is made of matrix products
  std::int64_t bytes = 0;  // of the operands, each read or written once; not of whole steps
};

Workload convolution(const ContextPtr& context, const Conv2dProblem& problem, Pass pass);

/// Maps (N, H, W, C), here and below; with ReLU, in training.
Workload batch_norm(const ContextPtr& context, const Shape& maps, bool backward);
/// Windows of 2x2.
Workload max_pool(const ContextPtr& context, const Shape& maps, bool backward);
/// To a quarter of height and width.
Workload adaptive_pool(const ContextPtr& context, const Shape& maps, bool backward);
Workload add(const ContextPtr& context, const Shape& maps);
/// To what the activation cache keeps, or back.
Workload cast(const ContextPtr& context, const Shape& maps, DType from, DType to);
/// With momentum and weight decay.
Workload sgd(const ContextPtr& context, const Shape& weights);

/// A step of backpropagation with VGG-11 of this width.
Workload step(const ContextPtr& context, double width, std::int64_t batch);
/// A local step of the second unit of VGG-11 with its auxiliary network.
Workload local_step(const ContextPtr& context, double width, std::int64_t batch);

}  // namespace nf::bench
