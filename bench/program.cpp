#include "bench/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>

namespace nf::bench {

int run_program(const char* name, int (*run)(int argc, char** argv), int argc, char** argv) {
  const auto fail = [&](const std::exception& error, int code) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
    return code;
  };
  try {
    return run(argc, argv);
  } catch (const BadFlags& error) {
    return fail(error, 2);
  } catch (const std::exception& error) {
    return fail(error, 1);
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return 0.5 * (values[(values.size() - 1) / 2] + values[values.size() / 2]);
}

}  // namespace nf::bench
