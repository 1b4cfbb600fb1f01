#include "kernels/reduce.cuh"

#include <algorithm>
#include <numeric>

namespace nf::NF_TARGET {
namespace {

using namespace reduction;

constexpr std::int64_t kShortRow = 1024;      // columns that 32 lanes reduce well
constexpr std::int64_t kMostPartials = 1024;  // of reduce_all
constexpr std::int64_t kLeastLength = 1 << 14;
constexpr std::int64_t kColumnBlocks = 512;  // of column sums, enough for the largest GPUs
constexpr std::int64_t kLeastRows = 16;      // that a thread of theirs sums

std::int64_t blocks_of(std::int64_t n, std::int64_t each) { return (n + each - 1) / each; }

/// What kernels are told: a mean is a sum that is divided by `divisor`.
Reduction undivided(Reduction reduction) {
  return reduction == Reduction::mean ? Reduction::sum : reduction;
}
float divisor(Reduction reduction, std::int64_t n) {
  return reduction == Reduction::mean ? static_cast<float>(n) : 1.0F;
}

/// Elements of each part of reduce_all; aligned as x is.
std::int64_t part_length(std::int64_t n) {
  return blocks_of(std::max(blocks_of(n, kMostPartials), kLeastLength), 8) * 8;
}

std::int64_t part_count(std::int64_t n) {
  return std::max<std::int64_t>(blocks_of(n, part_length(n)), 1);
}

/// The smallest power of two that is not below n, as an exponent, at most `most`.
std::int32_t log2_of(std::int64_t n, std::int32_t most) {
  std::int32_t log2 = 0;
  while (log2 < most && (std::int64_t{1} << log2) < n) ++log2;
  return log2;
}

/// Vectors across that a block takes, as an exponent: 2^narrow or, where it has few rows, more.
std::int32_t across_log2(std::int64_t vectors, std::int64_t rows, std::int32_t narrow) {
  return log2_of(vectors, 8 - log2_of(blocks_of(rows, kAtOnce), 8 - narrow));
}

/// Rows taken together as one, so that vectors of `vector` elements fit in.
std::int64_t rows_together(std::int64_t columns, std::int64_t vector) {
  return vector / std::gcd(vector, columns);
}

/// Column sums of x (rows, columns), rows_together of them being one row.
struct ColumnPlan {
  ColumnTiles partials, totals;
  std::int64_t row_blocks = 0, left = 0;
};

ColumnPlan plan_columns(std::int64_t rows, std::int64_t columns, std::int64_t vector) {
  const std::int64_t together = rows_together(columns, vector);
  const std::int64_t full_rows = rows / together, row_columns = columns * together;
  const std::int64_t vectors = row_columns / vector;
  const std::int32_t across = across_log2(vectors, full_rows, 5);
  const std::int64_t blocks_across = blocks_of(vectors, std::int64_t{1} << across);
  const std::int64_t least = kLeastRows * (kReduceThreads >> across);
  const std::int64_t wanted = std::min(blocks_of(full_rows, least), kColumnBlocks / blocks_across);
  const std::int64_t rows_per_block = blocks_of(full_rows, std::max<std::int64_t>(wanted, 1));
  ColumnPlan plan;
  plan.left = rows - full_rows * together;
  plan.row_blocks = full_rows == 0 ? 0 : blocks_of(full_rows, rows_per_block);
  plan.partials = {.rows = full_rows,
                   .columns = row_columns,
                   .rows_per_block = rows_per_block,
                   .across_log2 = across,
                   .blocks_across = static_cast<std::int32_t>(blocks_across)};
  const std::int64_t sums = plan.row_blocks * together;
  const std::int32_t narrow = across_log2(columns, sums, 3);
  plan.totals = {.rows = sums,
                 .columns = columns,
                 .rows_per_block = sums,
                 .across_log2 = narrow,
                 .blocks_across = static_cast<std::int32_t>(blocks_of(columns, 1 << narrow))};
  return plan;
}

template <typename T, int V>
void run_column_sums(Stream stream, const T* x, std::int64_t rows, std::int64_t columns, T* y,
                     bool accumulate, float* partials) {
  const ColumnPlan plan = plan_columns(rows, columns, V);
  if (plan.row_blocks > 0)
    launch("column_partials", column_partials_kernel<V, T>,
           {plan.row_blocks * plan.partials.blocks_across}, {kReduceThreads}, 0, stream, x,
           plan.partials, partials);
  launch("column_totals", column_totals_kernel<T>, {plan.totals.blocks_across}, {kReduceThreads}, 0,
         stream, partials, plan.totals, x + (rows - plan.left) * columns,
         static_cast<int>(plan.left), y, accumulate);
}

}  // namespace

template <typename T>
void reduce_rows(Stream stream, Reduction reduction, const T* x, std::int64_t rows,
                 std::int64_t columns, float* y) {
  if (rows == 0) return;
  const float by = divisor(reduction, columns);
  if (columns > kShortRow) {
    launch("reduce_rows", reduce_parts_kernel<T>, {rows}, {kReduceThreads}, 0, stream,
           undivided(reduction), x, rows * columns, columns, by, y);
    return;
  }
  const std::int32_t lanes_log2 = log2_of(blocks_of(columns, kVec<T>), 5);
  launch("reduce_short_rows", reduce_short_rows_kernel<T>,
         {blocks_of(rows, kReduceThreads >> lanes_log2)}, {kReduceThreads}, 0, stream,
         undivided(reduction), x, rows, columns, lanes_log2, by, y);
}

std::int64_t reduce_all_workspace(std::int64_t n) {
  return part_count(n) * static_cast<std::int64_t>(sizeof(float));
}

template <typename T>
void reduce_all(Stream stream, Reduction reduction, const T* x, std::int64_t n, float* y,
                void* workspace) {
  auto* partials = static_cast<float*>(workspace);
  const std::int64_t parts = part_count(n);
  launch("reduce_all", reduce_parts_kernel<T>, {parts}, {kReduceThreads}, 0, stream,
         undivided(reduction), x, n, part_length(n), 1.0F, partials);
  const Reduction joining =
      reduction == Reduction::sum_of_squares ? Reduction::sum : undivided(reduction);
  launch("reduce_all_partials", reduce_parts_kernel<float>, {1}, {kReduceThreads}, 0, stream,
         joining, partials, parts, parts, divisor(reduction, n), y);
}

std::int64_t column_sums_workspace(std::int64_t rows, std::int64_t columns) {
  std::int64_t most = 1;
  for (const std::int64_t vector : {1, 4, 8}) {
    if (columns == 0) break;
    const ColumnPlan plan = plan_columns(rows, columns, vector);
    most = std::max(most, plan.row_blocks * plan.partials.columns);
  }
  return most * static_cast<std::int64_t>(sizeof(float));
}

template <typename T>
void column_sums(Stream stream, const T* x, std::int64_t rows, std::int64_t columns, T* y,
                 bool accumulate, void* workspace) {
  if (columns == 0) return;
  auto* partials = static_cast<float*>(workspace);
  if (aligned16(x))
    run_column_sums<T, kVec<T>>(stream, x, rows, columns, y, accumulate, partials);
  else
    run_column_sums<T, 1>(stream, x, rows, columns, y, accumulate, partials);
}

template <typename T>
void all_finite(Stream stream, const T* x, std::int64_t n, std::int32_t* flag) {
  if (n == 0) return;
  launch("all_finite", all_finite_kernel<T>, {blocks_of(n, kReduceThreads * kAtOnce * kVec<T>)},
         {kReduceThreads}, 0, stream, x, n, flag);
}

#define NF_REDUCE(T)                                                                          \
  template void reduce_rows(Stream, Reduction, const T*, std::int64_t, std::int64_t, float*); \
  template void reduce_all(Stream, Reduction, const T*, std::int64_t, float*, void*);         \
  template void column_sums(Stream, const T*, std::int64_t, std::int64_t, T*, bool, void*);   \
  template void all_finite(Stream, const T*, std::int64_t, std::int32_t*)

NF_REDUCE(float);
NF_REDUCE(bf16);
NF_REDUCE(f16);

}  // namespace nf::NF_TARGET
