// Times operators at the shapes of real nets; bench/README.md tells how to read it.
#include "bench/ops_bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <utility>
#include <vector>

#include "bench/conditions.h"
#include "bench/net_shapes.h"
#include "bench/program.h"

namespace nf::bench {

Tensor empty_tensor(const Setup& setup, const Shape& shape, DType dtype) {
  return Tensor::empty(setup.context, shape, dtype);
}

void report_flops(benchmark::State& state, double flops) {
  state.counters["GFLOP"] =
      benchmark::Counter(flops / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

void report_bytes(benchmark::State& state, std::int64_t bytes) {
  state.counters["GB"] = benchmark::Counter(static_cast<double>(bytes) / 1e9,
                                            benchmark::Counter::kIsIterationInvariantRate);
}

void add_benchmark(const std::string& name, std::function<void(benchmark::State&)> body) {
  const auto guarded = [body = std::move(body)](benchmark::State& state) {
    try {
      body(state);
    } catch (const Error& error) {
      state.SkipWithError(error.what());
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), guarded)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

namespace {

int run(int argc, char** argv) {
  std::int64_t batch = 16;
  ContextOptions options;
  bool no_onednn = false;
  std::string device = "cpu";
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  app.add_option("--nf_batch", batch)->check(CLI::Range(1, 4096));
  app.add_option("--nf_threads", options.threads)->check(CLI::Range(0, 1024));
  app.add_flag("--nf_no_onednn", no_onednn);
  app.add_option("--nf_device", device);
  try {
    app.parse(argc, argv);
    options.device = parse_device(device);
    NF_CHECK(options.device.kind != DeviceKind::meta, "{} computes nothing", device);
  } catch (const Error& error) {
    throw BadFlags(fmt::format("--nf_device: {}", error.what()));
  } catch (const CLI::ParseError& error) {
    throw BadFlags(error.what());
  }
  options.onednn = !no_onednn;

  // What is not ours goes on to the library.
  std::vector<std::string> rest = app.remaining();
  std::vector<char*> arguments{argv[0]};
  for (std::string& argument : rest) arguments.push_back(argument.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

  check_against_models();
  const Setup setup{Context::create(options), batch};
  benchmark::AddCustomContext("batch", std::to_string(batch));
  benchmark::AddCustomContext("device", to_string(options.device));
  benchmark::AddCustomContext("threads", std::to_string(setup.backend().threads()));
  benchmark::AddCustomContext("library", library(options));
  benchmark::AddCustomContext("cpu_isa", cpu_isa());
  benchmark::AddCustomContext("compiler", compiler());
  benchmark::AddCustomContext("build", build());
  benchmark::AddCustomContext("commit", commit());
  add_dense_benchmarks(setup);
  add_light_benchmarks(setup);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("ops_bench", nf::bench::run, argc, argv);
}
