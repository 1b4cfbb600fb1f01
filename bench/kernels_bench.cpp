// Times every launcher of the kernels on a GPU beside a copy of as many bytes; bench/README.md
// tells how to read it.
#include <benchmark/benchmark.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "bench/conditions.h"
#include "bench/program.h"
#include "engine/error.h"
#include "kernels/catalogue.h"

namespace nf::bench {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

#define NF_CUDA_CHECK(call)                                                       \
  do {                                                                            \
    const cudaError_t status = (call);                                            \
    NF_CHECK(status == cudaSuccess, "{}: {}", #call, cudaGetErrorString(status)); \
  } while (false)

/// Device memory, until the end.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() {
    for (void* block : blocks_) cudaFree(block);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* allocate(std::int64_t bytes) {
    void* block = nullptr;
    NF_CUDA_CHECK(cudaMalloc(&block, static_cast<std::size_t>(bytes)));
    blocks_.push_back(block);
    return block;
  }

 private:
  std::vector<void*> blocks_;
};

class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    for (cudaEvent_t& event : events_) NF_CUDA_CHECK(cudaEventCreate(&event));
  }
  ~Stopwatch() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Seconds of one of `count` calls in a row.
  template <typename Call>
  double time(int count, const Call& call) {
    NF_CUDA_CHECK(cudaEventRecord(events_[0], stream_));
    for (int i = 0; i < count; ++i) call();
    NF_CUDA_CHECK(cudaEventRecord(events_[1], stream_));
    NF_CUDA_CHECK(cudaEventSynchronize(events_[1]));
    float milliseconds = 0;
    NF_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]));
    return static_cast<double>(milliseconds) / 1e3 / count;
  }

 private:
  cudaStream_t stream_;
  std::array<cudaEvent_t, 2> events_{};
};

class Queue {
 public:
  Queue() { NF_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Queue() { cudaStreamDestroy(stream_); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Each iteration times the launcher and then a copy that reads and writes as many bytes together.
void time_entry(benchmark::State& state, const CatalogueEntry& entry, int calls) {
  const Queue stream;
  DeviceMemory memory;
  const Launch launch =
      entry.prepare([&](std::int64_t bytes) { return memory.allocate(bytes); }, stream);
  const std::int64_t half = std::max<std::int64_t>(entry.must_bytes() / 2, 1);
  const void* from = memory.allocate(half);
  void* to = memory.allocate(half);
  const auto copy = [&] {
    NF_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(half),
                                  cudaMemcpyDeviceToDevice, stream));
  };
  Stopwatch stopwatch(stream);
  stopwatch.time(calls, [&] { launch(stream); });
  stopwatch.time(calls, copy);
  double seconds = 0, copy_seconds = 0;
  for ([[maybe_unused]] auto _ : state) {
    const double once = stopwatch.time(calls, [&] { launch(stream); });
    state.SetIterationTime(once);
    seconds += once;
    copy_seconds += stopwatch.time(calls, copy);
  }
  const auto iterations = static_cast<double>(state.iterations());
  const double rate = static_cast<double>(entry.must_bytes()) * iterations / seconds;
  const double copy_rate = static_cast<double>(2 * half) * iterations / copy_seconds;
  state.counters["bytes_per_second"] = rate;
  state.counters["copy_bytes_per_second"] = copy_rate;
  state.counters["ratio"] = rate / copy_rate;
  state.counters["must_bytes"] = static_cast<double>(entry.must_bytes());
}

void add_entries(const std::string& prefix, const CatalogueSizes& sizes, int calls) {
  for (const CatalogueEntry& entry : cuda::catalogue(sizes)) {
    const auto body = [entry, calls](benchmark::State& state) {
      try {
        time_entry(state, entry, calls);
      } catch (const std::exception& error) {
        cudaGetLastError();
        state.SkipWithError(error.what());
      }
    };
    benchmark::RegisterBenchmark((prefix + "/" + entry.name()).c_str(), body)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

struct BenchOptions {
  std::int64_t large_mib = 256, small_mib = 4, side = 32, channels = 64;
  std::string storage = "f32";
};

/// As many images as make a tensor of `mib`.
CatalogueSizes sizes_of(const BenchOptions& options, std::int64_t mib) {
  CatalogueSizes sizes{.n = 1, .h = options.side, .w = options.side, .c = options.channels};
  for (const StorageType storage : {StorageType::f32, StorageType::bf16, StorageType::f16})
    if (options.storage == to_string(storage)) sizes.storage = storage;
  const std::int64_t element = sizes.storage == StorageType::f32 ? 4 : 2;
  sizes.n = std::max<std::int64_t>(mib * kMiB / (sizes.h * sizes.w * sizes.c * element), 1);
  return sizes;
}

void add_conditions(const BenchOptions& options) {
  int device = 0, driver = 0, runtime = 0;
  cudaDeviceProp properties{};
  NF_CUDA_CHECK(cudaGetDevice(&device));
  NF_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  NF_CUDA_CHECK(cudaDriverGetVersion(&driver));
  NF_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  benchmark::AddCustomContext("gpu", properties.name);
  benchmark::AddCustomContext("l2_bytes", std::to_string(properties.l2CacheSize));
  benchmark::AddCustomContext("cuda_driver", std::to_string(driver));
  benchmark::AddCustomContext("cuda_runtime", std::to_string(runtime));
  benchmark::AddCustomContext("dtype", options.storage);
  benchmark::AddCustomContext("compiler", compiler());
  benchmark::AddCustomContext("build", build());
  benchmark::AddCustomContext("commit", commit());
}

int run(int argc, char** argv) {
  BenchOptions options;
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  app.add_option("--nf_dtype", options.storage)->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_option("--nf_large_mib", options.large_mib)->check(CLI::Range(1, 65536));
  app.add_option("--nf_small_mib", options.small_mib)->check(CLI::Range(1, 65536));
  app.add_option("--nf_size", options.side)->check(CLI::Range(1, 4096));
  app.add_option("--nf_channels", options.channels)->check(CLI::Range(1, 4096));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    throw BadFlags(error.what());
  }
  std::vector<std::string> rest = app.remaining();
  std::vector<char*> arguments{argv[0]};
  for (std::string& argument : rest) arguments.push_back(argument.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    fmt::print("kernels_bench: skipped, no GPU answers: {}\n",
               status != cudaSuccess ? cudaGetErrorString(status) : "no device");
    return 0;
  }
  add_conditions(options);
  // Short kernels in longer rows, so that what lies between two events is not them alone.
  add_entries(fmt::format("{}MiB", options.large_mib), sizes_of(options, options.large_mib), 4);
  add_entries(fmt::format("{}MiB", options.small_mib), sizes_of(options, options.small_mib), 32);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("kernels_bench", nf::bench::run, argc, argv);
}
