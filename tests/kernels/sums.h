// Sums in float against sums in double, within what rounding explains.
#pragma once

#include <cmath>

#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {

/// A sum as it should be, and what its terms' sizes add up to.
struct Sum {
  double value = 0, size = 0;
  int terms = 0;
  void add(double term) {
    value += term;
    size += std::abs(term);
    ++terms;
  }
};

/// Each of a sum's terms, and `others` operations on the whole, may lose half a unit of its size in
/// float; then it is rounded to T.
template <typename T>
void expect_sums(const std::vector<T>& actual, const std::vector<Sum>& expected, int others) {
  ASSERT_EQ(actual.size(), expected.size());
  // Half of f16's smallest number; those of the others are far below.
  const double smallest = std::is_same_v<T, f16> ? 0x1p-25 : 0x1p-149;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const Sum& sum = expected[i];
    const double value = to_host_float(actual[i]);
    if (!std::isfinite(sum.value)) {
      if (std::isnan(sum.value))
        ASSERT_TRUE(std::isnan(value)) << value << " at element " << i;
      else
        ASSERT_EQ(value, sum.value) << "element " << i;
      continue;
    }
    const double in_float = (sum.terms + others) * 0x1p-24 * sum.size;
    const double tolerance = in_float + kRounding<T> * (std::abs(sum.value) + in_float) + smallest;
    ASSERT_NEAR(value, sum.value, tolerance) << "element " << i;
  }
}

}  // namespace nf::NF_TARGET::test
