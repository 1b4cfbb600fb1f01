// What the benchmark programs have in common.
#pragma once

#include <stdexcept>
#include <vector>

namespace nf::bench {

/// What was asked for on the command line can't be done.
class BadFlags : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a benchmark's main does: run(argc, argv), and what it throws goes to stderr after the
/// program's name, with exit code 2 for BadFlags and 1 for all else.
int run_program(const char* name, int (*run)(int argc, char** argv), int argc, char** argv);

/// Of values in any order, not empty; of an even number the mean of the two in the middle.
double median(std::vector<double> values);

}  // namespace nf::bench
