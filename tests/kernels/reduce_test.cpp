#include "kernels/reduce.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "tests/kernels/device.h"
#if !defined(NF_TESTS_ON_GPU)
#include "tests/kernels/emulated.h"
#endif

namespace nf::NF_TARGET::test {
namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::mean, Reduction::min,
                                     Reduction::max, Reduction::sum_of_squares};

const char* text(Reduction reduction) {
  constexpr const char* kNames[] = {"sum", "mean", "min", "max", "sum of squares"};
  return kNames[static_cast<int>(reduction)];
}

/// Whole numbers from -4 to 4: any order of adding up to a million of them is exact.
template <typename T>
std::vector<T> whole_values(int64_t n, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& value : values)
    value = from_host_float<T>(static_cast<float>(static_cast<int>(random() % 9) - 4));
  return values;
}

struct Exact {
  double value = 0;
  double size = 0;  // what the terms' sizes add up to
};

template <typename T>
Exact reference(Reduction reduction, const T* x, int64_t n, int64_t step = 1) {
  Exact exact;
  if (reduction == Reduction::min) exact.value = kInfinity;
  if (reduction == Reduction::max) exact.value = -kInfinity;
  for (int64_t i = 0; i < n; ++i) {
    const double value = to_host_float(x[i * step]);
    const double term = reduction == Reduction::sum_of_squares ? value * value : value;
    if (reduction == Reduction::min)
      exact.value = std::min(exact.value, value);
    else if (reduction == Reduction::max)
      exact.value = std::max(exact.value, value);
    else
      exact.value += term;
    exact.size += std::abs(term);
  }
  if (reduction == Reduction::mean) {
    exact.value /= static_cast<double>(n);
    exact.size /= static_cast<double>(n);
  }
  return exact;
}

template <typename T>
void expect_rows(const std::vector<T>& x, int64_t rows, int64_t columns, int64_t offset,
                 bool exactly) {
  DeviceArray<T> in(x, offset);
  DeviceArray<float> y(rows, 1);
  for (const Reduction reduction : kReductions) {
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(columns) + " " + text(reduction) +
                 ", offset " + std::to_string(offset));
    reduce_rows(kStream, reduction, in.data(), rows, columns, y.data());
    const std::vector<float> actual = y.host();
    const double depth = 33 + static_cast<double>(columns) / 65536;
    for (int64_t row = 0; row < rows; ++row) {
      const Exact exact = reference(reduction, x.data() + row * columns, columns);
      const float got = actual[static_cast<std::size_t>(row)];
      if (exactly || reduction == Reduction::min || reduction == Reduction::max)
        ASSERT_EQ(got, static_cast<float>(exact.value)) << "row " << row;
      else
        ASSERT_NEAR(got, exact.value, depth * 0x1p-24 * exact.size) << "row " << row;
    }
  }
}

template <typename T>
class KernelsReduce : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsReduce, StorageTypes);

TYPED_TEST(KernelsReduce, Rows) {
  using T = TypeParam;
  // One lane to a row, several, a warp, a block; rows that begin anywhere; tails of all.
  constexpr int64_t kShapes[][2] = {{1, 1},    {600, 1},  {70, 3},   {33, 8},   {65, 10},
                                    {40, 17},  {31, 31},  {17, 64},  {9, 127},  {5, 200},
                                    {3, 1000}, {9, 1024}, {2, 1025}, {3, 5003}, {1, 70001}};
  for (const auto& [rows, columns] : kShapes)
    for (const int64_t offset : {0, 1, 3})
      expect_rows(whole_values<T>(rows * columns, 1), rows, columns, offset, true);
}

TYPED_TEST(KernelsReduce, RowsOfAnyNumbersWithinTheBound) {
  using T = TypeParam;
  for (const auto& [rows, columns] : {std::pair{20, 10}, {20, 900}, {2, 200000}})
    expect_rows(random_values<T>(rows * columns, 2), rows, columns, 0, false);
}

TYPED_TEST(KernelsReduce, All) {
  using T = TypeParam;
  for (const int64_t n : {1, 2, 9, 255, 4096, 16384, 16385, 100003, 500001})
    for (const int64_t offset : {0, 1}) {
      const auto x = whole_values<T>(n, 3);
      DeviceArray<T> in(x, offset);
      DeviceArray<float> y(1, 1);
      DeviceArray<std::uint8_t> workspace(reduce_all_workspace(n));
      for (const Reduction reduction : kReductions) {
        reduce_all(kStream, reduction, in.data(), n, y.data(), workspace.data());
        EXPECT_EQ(y.host()[0], static_cast<float>(reference(reduction, x.data(), n).value))
            << text(reduction) << " of " << n << ", offset " << offset;
      }
    }
}

TYPED_TEST(KernelsReduce, AllOfAnyNumbersWithinTheBound) {
  using T = TypeParam;
  constexpr int64_t n = 300000;
  const auto x = random_values<T>(n, 4);
  DeviceArray<T> in(x);
  DeviceArray<float> y(1);
  DeviceArray<std::uint8_t> workspace(reduce_all_workspace(n));
  for (const Reduction reduction : {Reduction::sum, Reduction::mean, Reduction::sum_of_squares}) {
    reduce_all(kStream, reduction, in.data(), n, y.data(), workspace.data());
    const Exact exact = reference(reduction, x.data(), n);
    EXPECT_NEAR(y.host()[0], exact.value, 47.01 * 0x1p-24 * exact.size) << text(reduction);
  }
}

TYPED_TEST(KernelsReduce, NothingReduced) {
  using T = TypeParam;
  T* none = nullptr;
  DeviceArray<float> y(2);
  DeviceArray<std::uint8_t> workspace(reduce_all_workspace(0));
  const auto expect_nothing = [&](Reduction reduction, float actual) {
    if (reduction == Reduction::mean)
      EXPECT_TRUE(std::isnan(actual));
    else
      EXPECT_EQ(actual, static_cast<float>(reference(reduction, none, 0).value)) << text(reduction);
  };
  for (const Reduction reduction : kReductions) {
    reduce_rows(kStream, reduction, none, 2, 0, y.data());
    for (const float actual : y.host()) expect_nothing(reduction, actual);
    reduce_all(kStream, reduction, none, 0, y.data(), workspace.data());
    expect_nothing(reduction, y.host()[0]);
    reduce_rows<T>(kStream, reduction, none, 0, 3, nullptr);
  }
}

TYPED_TEST(KernelsReduce, NaNPropagatesFromAnywhere) {
  using T = TypeParam;
  for (const int64_t n : {1, 3, 30, 150, 1100, 20000}) {
    auto x = whole_values<T>(n, 5);
    DeviceArray<T> in(n, 1);
    DeviceArray<float> y(1);
    DeviceArray<std::uint8_t> workspace(reduce_all_workspace(n));
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      const T old = std::exchange(x[static_cast<std::size_t>(at)], from_host_float<T>(kNaN));
      std::copy(x.begin(), x.end(), in.data());
      x[static_cast<std::size_t>(at)] = old;
      for (const Reduction reduction : kReductions) {
        reduce_rows(kStream, reduction, in.data(), 1, n, y.data());
        EXPECT_TRUE(std::isnan(y.host()[0])) << text(reduction) << " of row " << n << " at " << at;
        reduce_all(kStream, reduction, in.data(), n, y.data(), workspace.data());
        EXPECT_TRUE(std::isnan(y.host()[0])) << text(reduction) << " of " << n << " at " << at;
      }
    }
  }
}

TYPED_TEST(KernelsReduce, InfinityIsANumber) {
  using T = TypeParam;
  auto x = whole_values<T>(3000, 6);
  x[1234] = from_host_float<T>(-kInfinity);
  DeviceArray<T> in(x);
  DeviceArray<float> y(1);
  const std::pair<Reduction, float> expected[] = {{Reduction::sum, -kInfinity},
                                                  {Reduction::mean, -kInfinity},
                                                  {Reduction::min, -kInfinity},
                                                  {Reduction::max, 4.0F},
                                                  {Reduction::sum_of_squares, kInfinity}};
  for (const auto& [reduction, value] : expected) {
    reduce_rows(kStream, reduction, in.data(), 1, 3000, y.data());
    EXPECT_EQ(y.host()[0], value) << text(reduction);
  }
}

template <typename T>
void expect_column_sums(const std::vector<T>& x, int64_t rows, int64_t columns, int64_t x_offset,
                        int64_t y_offset, double depth) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(columns) + ", offsets " +
               std::to_string(x_offset) + " " + std::to_string(y_offset));
  const auto old = whole_values<T>(columns, 7);
  DeviceArray<T> in(x, x_offset), y(old, y_offset);
  DeviceArray<std::uint8_t> workspace(column_sums_workspace(rows, columns));
  for (const bool accumulate : {true, false}) {
    column_sums(kStream, in.data(), rows, columns, y.data(), accumulate, workspace.data());
    const std::vector<T> actual = y.host();
    for (std::size_t c = 0; c < actual.size(); ++c) {
      Exact exact = reference(Reduction::sum, x.data() + c, rows, columns);
      if (accumulate) exact.value += to_host_float(old[c]);
      const double in_float = depth * 0x1p-24 * exact.size;
      const float got = to_host_float(actual[c]);
      if (depth == 0)
        ASSERT_EQ(got, to_host_float(from_host_float<T>(static_cast<float>(exact.value))))
            << "column " << c << ", accumulate " << accumulate;
      else
        ASSERT_NEAR(got, exact.value, in_float + kRounding<T> * (std::abs(exact.value) + in_float))
            << "column " << c << ", accumulate " << accumulate;
    }
  }
}

TYPED_TEST(KernelsReduce, ColumnSums) {
  using T = TypeParam;
  // Rows that vectors fit in alone, in twos, fours and eights; rows left over; many columns.
  constexpr int64_t kShapes[][2] = {{1, 1},    {7, 1},    {8, 1},     {40003, 1}, {9, 3},
                                    {1000, 3}, {65, 10},  {515, 64},  {257, 100}, {129, 300},
                                    {5, 1000}, {37, 257}, {6001, 40}, {3, 4},     {1, 9}};
  for (const auto& [rows, columns] : kShapes)
    for (const auto& [x_offset, y_offset] : {std::pair{0, 0}, {1, 0}, {0, 1}})
      expect_column_sums(whole_values<T>(rows * columns, 8), rows, columns, x_offset, y_offset, 0);
}

TYPED_TEST(KernelsReduce, ColumnSumsOfMoreColumnsThanBlocks) {
  expect_column_sums(whole_values<TypeParam>(17 * 140000, 9), 17, 140000, 0, 0, 0);
}

TYPED_TEST(KernelsReduce, ColumnSumsOfAnyNumbersWithinTheBound) {
  for (const auto& [rows, columns] : {std::pair{100000, 3}, {3000, 96}})
    expect_column_sums(random_values<TypeParam>(rows * columns, 10), rows, columns, 0, 0, 64.1);
}

TYPED_TEST(KernelsReduce, ColumnSumsOfNoRowsOrColumns) {
  using T = TypeParam;
  T* none = nullptr;
  const auto old = whole_values<T>(20, 11);
  DeviceArray<T> y(old);
  DeviceArray<std::uint8_t> workspace(column_sums_workspace(0, 20));
  column_sums(kStream, none, 0, 20, y.data(), true, workspace.data());
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(to_host_float(y.host()[i]), to_host_float(old[i]));
  column_sums(kStream, none, 0, 20, y.data(), false, workspace.data());
  for (const T sum : y.host()) EXPECT_EQ(to_host_float(sum), 0);
  EXPECT_GT(column_sums_workspace(20, 0), 0);
  column_sums(kStream, none, 20, 0, none, false, workspace.data());
}

TEST(KernelsReduceWorkspace, IsAsSmallAsTheHeaderSays) {
  for (int64_t n = 1; n < int64_t{1} << 45; n = n * 5 + 3) {
    EXPECT_GT(reduce_all_workspace(n), 0);
    EXPECT_LE(reduce_all_workspace(n), 4096);
  }
  for (int64_t rows = 1; rows < int64_t{1} << 36; rows = rows * 3 + 2)
    for (int64_t columns = 1; columns < int64_t{1} << 24; columns = columns * 3 + 1) {
      EXPECT_GT(column_sums_workspace(rows, columns), 0);
      EXPECT_LE(column_sums_workspace(rows, columns), std::max<int64_t>(1 << 19, 32 * columns));
    }
}

TYPED_TEST(KernelsReduce, AllFinite) {
  using T = TypeParam;
  DeviceArray<std::int32_t> flag(1);
  for (const int64_t n : {1, 7, 100, 4096, 8195})
    for (const int64_t offset : {0, 1}) {
      const auto x = random_values<T>(n, 12);
      DeviceArray<T> in(x, offset);
      const float largest = std::is_same_v<T, f16> ? 65504.0F : 0x1.fep127F;
      in.data()[n / 2] = from_host_float<T>(-largest);
      flag.data()[0] = 7;
      all_finite(kStream, in.data(), n, flag.data());
      EXPECT_EQ(flag.host()[0], 7) << n;
      for (const float bad : {kInfinity, -kInfinity, kNaN})
        for (const int64_t at : {int64_t{0}, n / 3, n - 1}) {
          const T old = std::exchange(in.data()[at], from_host_float<T>(bad));
          flag.data()[0] = 1;
          all_finite(kStream, in.data(), n, flag.data());
          EXPECT_EQ(flag.host()[0], 0) << bad << " at " << at << " of " << n;
          in.data()[at] = old;
        }
    }
  flag.data()[0] = 3;
  all_finite(kStream, static_cast<T*>(nullptr), 0, flag.data());
  EXPECT_EQ(flag.host()[0], 3);
}

TEST(KernelsReduceLimits, MoreThanTwoToTheSixteenthBlocks) {
  constexpr int64_t kBlock = 256;  // rows
  constexpr int64_t rows = 65537 * kBlock + 3;
  DeviceArray<bf16> x(rows);
  DeviceArray<float> y(rows);
  const auto values = whole_values<bf16>(1000, 13);
  for (int64_t i = 0; i < rows; ++i) x.data()[i] = values[static_cast<std::size_t>(i % 1000)];
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take half a minute here.
  const WithOptions some({.only = {0, 65535, 65536, -1}});
#endif
  reduce_rows(kStream, Reduction::sum, x.data(), rows, 1, y.data());
  const auto sums = y.host();
  for (const int64_t block : {0, 65535, 65536, 65537})
    for (int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, rows); ++i)
      ASSERT_EQ(sums[static_cast<std::size_t>(i)],
                to_host_float(values[static_cast<std::size_t>(i % 1000)]))
          << "row " << i;
}

#if !defined(NF_TESTS_ON_GPU)
// The first block and the last must find their places, which 32 bits don't hold.
TEST(KernelsReduceLimits, MoreThanTwoToTheThirtyFirstElements) {
  constexpr int64_t n = (int64_t{1} << 32) + 12347;  // a multiple of 3, but not of vectors
  HugeArray<f16> x(n);
  if (x.failed()) GTEST_SKIP() << "no 8 GiB of addresses";
  const WithOptions ends({.only = {0, -1}});
  x.data()[n - 1] = x.data()[n - 20] = from_host_float<f16>(2);

  DeviceArray<std::uint8_t> workspace(std::vector<std::uint8_t>(
      static_cast<std::size_t>(std::max(reduce_all_workspace(n), column_sums_workspace(n, 1)))));
  DeviceArray<float> sum(1);
  reduce_all(kStream, Reduction::sum, x.data(), n, sum.data(), workspace.data());
  EXPECT_EQ(sum.host()[0], 4);

  for (const int64_t columns : {int64_t{3}, n / 2049}) {
    const int64_t rows = n / columns, left = n - rows * columns;
    HugeArray<float> sums(rows);
    ASSERT_FALSE(sums.failed());
    reduce_rows(kStream, Reduction::sum, x.data() + left, rows, columns, sums.data());
    EXPECT_EQ(sums.data()[rows - 1], columns == 3 ? 2 : 4);
    EXPECT_EQ(sums.data()[0], 0);
  }

  DeviceArray<std::int32_t> flag(std::vector<std::int32_t>{1});
  x.data()[n - 20] = from_host_float<f16>(kInfinity);
  all_finite(kStream, x.data(), n, flag.data());
  EXPECT_EQ(flag.host()[0], 0);
}

TEST(KernelsReduceLimits, ColumnSumsOfMoreThanTwoToTheThirtyFirstElements) {
  constexpr int64_t columns = 3, rows = (int64_t{1} << 31) / columns + 5;
  HugeArray<f16> x(rows * columns);
  if (x.failed()) GTEST_SKIP() << "no 4 GiB of addresses";
  // In the last block, and in the rows that are left over from vectors.
  for (const int64_t row : {rows - 20, rows - 1})
    x.data()[row * columns + 2] = from_host_float<f16>(1);
  DeviceArray<f16> y(columns);
  DeviceArray<std::uint8_t> workspace(
      std::vector<std::uint8_t>(static_cast<std::size_t>(column_sums_workspace(rows, columns))));
  const WithOptions last({.only = {-1}});
  column_sums(kStream, x.data(), rows, columns, y.data(), false, workspace.data());
  EXPECT_EQ(to_host_float(y.host()[0]), 0);
  EXPECT_EQ(to_host_float(y.host()[2]), 2);
}

TEST(KernelsReduceOrder, ChangesNoBit) {
  constexpr int64_t rows = 3000, columns = 37;
  DeviceArray<float> x(random_values<float>(rows * columns, 14));
  DeviceArray<float> sums(columns), of_rows(rows), total(1);
  DeviceArray<std::uint8_t> workspace(
      std::max(reduce_all_workspace(rows * columns), column_sums_workspace(rows, columns)));
  std::vector<std::vector<float>> first;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const WithOptions order({.seed = seed});
    column_sums(kStream, x.data(), rows, columns, sums.data(), false, workspace.data());
    reduce_rows(kStream, Reduction::sum, x.data(), rows, columns, of_rows.data());
    reduce_all(kStream, Reduction::sum, x.data(), rows * columns, total.data(), workspace.data());
    const std::vector<std::vector<float>> now = {sums.host(), of_rows.host(), total.host()};
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << "seed " << seed;
  }
}

// What the header says.
TEST(KernelsReduceTraffic, MovesWhatItMust) {
  constexpr int64_t rows = 512, columns = 2048, n = rows * columns;
  constexpr int64_t kBytes = n * 2;
  DeviceArray<bf16> x(random_values<bf16>(n, 15)), y(columns);
  DeviceArray<float> of_rows(n / 128);
  DeviceArray<std::int32_t> flag(1);
  DeviceArray<std::uint8_t> workspace(
      std::max(reduce_all_workspace(n), column_sums_workspace(rows, columns)));
  const WithOptions watching({.behaviour = true});
  // What several kernels load and store, their stores together.
  const auto expect_moved = [](int64_t loaded, int64_t stored, const auto& run) {
    simt::emulator::reset_behaviour();
    run();
    int64_t loads = 0, stores = 0;
    std::string names;
    for (const auto& kernel : simt::emulator::behaviour()) {
      loads += kernel.loads.bytes_moved();
      stores += kernel.stores.bytes_asked;  // those of a block fill no sector
      names += kernel.name + " ";
    }
    EXPECT_EQ(simt::emulator::behaviour()[0].loads.requests, kBytes / 16 / 32) << names;
    EXPECT_EQ(loads, loaded) << names;
    EXPECT_EQ(stores, stored) << names;
  };
  expect_moved(kBytes, rows * 4, [&] {
    reduce_rows(kStream, Reduction::max, x.data(), rows, columns, of_rows.data());
  });
  expect_moved(kBytes, n / 128 * 4, [&] {
    reduce_rows(kStream, Reduction::max, x.data(), n / 128, 128, of_rows.data());
  });
  const int64_t partials = reduce_all_workspace(n);
  expect_moved(kBytes + partials, partials + 4, [&] {
    reduce_all(kStream, Reduction::sum, x.data(), n, of_rows.data(), workspace.data());
  });
  const int64_t column_partials = column_sums_workspace(rows, columns);
  expect_moved(kBytes + column_partials, column_partials + 2 * columns, [&] {
    column_sums(kStream, x.data(), rows, columns, y.data(), false, workspace.data());
  });
  expect_moved(kBytes, 0, [&] { all_finite(kStream, x.data(), n, flag.data()); });
}
#endif

}  // namespace
}  // namespace nf::NF_TARGET::test
