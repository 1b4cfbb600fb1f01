// What the operator benchmarks share: operands in the pool, the timed loop, their rates.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>

#include "bench/reference.h"
#include "engine/tensor.h"

namespace nf::bench {

struct Setup {
  ContextPtr context;
  std::int64_t batch = 16;

  Backend& backend() const { return context->backend(); }
};

/// Uninitialised.
Tensor empty_tensor(const Setup& setup, const Shape& shape, DType dtype = DType::f32);

/// Runs `op` once to warm up, then as often as the library asks. A device that runs behind the host
/// gets several at a time: what is timed is then the device, not the way to it.
template <typename Op>
void time_op(benchmark::State& state, const Setup& setup, const Op& op) {
  op();
  setup.backend().synchronize();
  const int calls = setup.context->device().kind == DeviceKind::cuda ? 16 : 1;
  while (state.KeepRunningBatch(calls)) {
    for (int i = 0; i < calls; ++i) op();
    setup.backend().synchronize();
  }
}

/// Counters "GFLOP" and "GB": per second, from the amount of one call.
void report_flops(benchmark::State& state, double flops);
void report_bytes(benchmark::State& state, std::int64_t bytes);

/// Adds a benchmark in wall time. An exception of its body becomes its error message.
void add_benchmark(const std::string& name, std::function<void(benchmark::State&)> body);

/// Convolution and linear layers, and a large matrix product as the peak to compare with.
void add_dense_benchmarks(const Setup& setup);
/// Batch norm, pooling and loss, and a large copy as the peak to compare with.
void add_light_benchmarks(const Setup& setup);

}  // namespace nf::bench
