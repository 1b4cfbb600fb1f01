#include <algorithm>
#include <numeric>
#include <string>

#include "kernels/batch_norm_apply.cuh"
#include "kernels/batch_norm_statistics.cuh"

namespace nf::NF_TARGET {
namespace {

constexpr std::int64_t kMostChannels = 1 << 27;  // virtual ones fit in 32 bits
constexpr std::int64_t kMostLanes = 32;
// Eight blocks for each of the 128 or so multiprocessors of a large GPU.
constexpr std::int64_t kManyBlocks = 1024;
constexpr std::int64_t kMostSplits = 512;  // of sums: eight of them per thread that adds them up
constexpr std::int64_t kFewestSummed = 8;  // rows that a thread sums, where there are as many
constexpr std::int64_t kMostWritten = 16;  // rows that a thread writes

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// All but the splits. V elements are a vector.
BatchNormLayout make_layout(std::int64_t rows, std::int64_t channels, std::int64_t vector) {
  if (channels > kMostChannels)
    throw KernelError("batch_norm: at most 2^27 channels, got " + std::to_string(channels));
  const std::int64_t period = std::lcm(channels, vector), columns = period / vector;
  const std::int64_t elements = rows * channels, vectors = elements / vector;
  const std::int64_t all_rows = divide_up(vectors, columns);
  std::int64_t tiles = divide_up(columns, kMostLanes);
  std::int64_t lanes = divide_up(columns, tiles);
  // An even number of vectors fills its sectors.
  if (tiles > 1) lanes += lanes % 2;
  const std::int64_t row_lanes = std::clamp<std::int64_t>(all_rows, 1, kBatchNormThreads / lanes);
  const std::int64_t tail_begin = vectors * vector;
  std::int32_t repeats_log2 = 0;
  while (channels << repeats_log2 < period) ++repeats_log2;
  return {.channels = static_cast<std::int32_t>(channels),
          .period = static_cast<std::int32_t>(period),
          .columns = static_cast<std::int32_t>(columns),
          .repeats_log2 = repeats_log2,
          .lanes = static_cast<std::int32_t>(lanes),
          .row_lanes = static_cast<std::int32_t>(row_lanes),
          .tiles = static_cast<std::int32_t>(divide_up(columns, lanes)),
          .splits = 1,
          .rows_per_split = all_rows,
          .full_rows = vectors / columns,
          .more_columns = static_cast<std::int32_t>(vectors % columns),
          .tail = static_cast<std::int32_t>(elements - tail_begin),
          .tail_begin = tail_begin,
          .tail_channel = static_cast<std::int32_t>(tail_begin % channels)};
}

/// Splits of rows_per_thread or a little more rows per thread.
void split_rows(BatchNormLayout& layout, std::int64_t rows_per_thread) {
  const std::int64_t all_rows = layout.full_rows + (layout.more_columns > 0 ? 1 : 0);
  layout.rows_per_split = std::max<std::int64_t>(1, rows_per_thread) * layout.row_lanes;
  layout.splits = static_cast<std::int32_t>(
      std::max<std::int64_t>(1, divide_up(all_rows, layout.rows_per_split)));
}

/// Rows per thread with which no more than `splits` come about.
std::int64_t rows_for(const BatchNormLayout& layout, std::int64_t splits) {
  const std::int64_t all_rows = layout.full_rows + (layout.more_columns > 0 ? 1 : 0);
  return divide_up(all_rows, layout.row_lanes * std::max<std::int64_t>(1, splits));
}

BatchNormLayout summing_layout(std::int64_t rows, std::int64_t channels, std::int64_t vector) {
  BatchNormLayout layout = make_layout(rows, channels, vector);
  const std::int64_t splits = std::min(kManyBlocks / layout.tiles, kMostSplits);
  split_rows(layout, std::max(rows_for(layout, splits), kFewestSummed));
  return layout;
}

/// For at least kManyBlocks blocks where each thread then still has four rows.
BatchNormLayout writing_layout(std::int64_t rows, std::int64_t channels, std::int64_t vector) {
  BatchNormLayout layout = make_layout(rows, channels, vector);
  const std::int64_t fitting = rows_for(layout, kManyBlocks / layout.tiles);
  split_rows(layout, std::clamp<std::int64_t>(fitting / 4 * 4, 4, kMostWritten));
  return layout;
}

std::int64_t blocks_of(const BatchNormLayout& layout) {
  return std::int64_t{layout.tiles} * layout.splits;
}

/// In whole warps.
std::int64_t threads_of(const BatchNormLayout& layout) {
  return divide_up(std::int64_t{layout.lanes} * layout.row_lanes, 32) * 32;
}

std::int64_t finishing_blocks(const BatchNormLayout& layout) {
  return divide_up(layout.channels, kFinishChannels);
}

std::int64_t partial_floats(const BatchNormLayout& layout) {
  return 2 * std::int64_t{layout.splits} * layout.period;
}

std::int64_t workspace_floats(std::int64_t rows, std::int64_t channels, std::int64_t vector) {
  return partial_floats(summing_layout(rows, channels, vector)) + 2 * channels;
}

bool is_empty(const BatchNormOptions& options) {
  return options.rows <= 0 || options.channels <= 0;
}

template <typename T>
BatchNormScaling make_scaling(const BatchNormOptions& options, const float* mean,
                              const float* spread, bool running, const float* gamma,
                              const float* beta) {
  return {.mean = mean,
          .spread = spread,
          .gamma = gamma,
          .beta = beta,
          .eps = static_cast<float>(options.eps),
          .running = running,
          .activate = options.activate,
          .bound = options.bound,
          .vectors = options.channels % kVec<T> == 0 && aligned16(mean, spread, gamma, beta)};
}

template <typename T>
void normalise(Stream stream, const BatchNormOptions& options, const BatchNormScaling& by,
               const T* x, const T* residual, T* y) {
  const BatchNormLayout layout = writing_layout(options.rows, options.channels, kVec<T>);
  const BatchNormForward<T> to{
      .x = x, .residual = residual, .y = y, .aligned = aligned16(x, residual, y)};
  launch("batch_norm_normalise", batch_norm_normalise_kernel<T>, {blocks_of(layout)},
         {threads_of(layout)}, 0, stream, layout, by, to);
}

}  // namespace

std::int64_t batch_norm_workspace(std::int64_t rows, std::int64_t channels) {
  if (rows <= 0 || channels <= 0) return 16;
  return 4 * std::max(workspace_floats(rows, channels, kVec<float>),
                      workspace_floats(rows, channels, kVec<f16>));
}

template <typename T>
void batch_norm_forward_train(Stream stream, const BatchNormOptions& options, const T* x,
                              const T* residual, const float* gamma, const float* beta,
                              float* running_mean, float* running_var, T* y, float* save_mean,
                              float* save_invstd, void* workspace) {
  if (is_empty(options)) return;
  const BatchNormLayout layout = summing_layout(options.rows, options.channels, kVec<T>);
  auto* partials = static_cast<float*>(workspace);
  launch("batch_norm_statistics", batch_norm_statistics_kernel<T>, {blocks_of(layout)},
         {threads_of(layout)}, 0, stream, layout, x, aligned16(x),
         options.channels % kVec<T> == 0 && aligned16(x), partials);
  const BatchNormStatistics to{.rows = static_cast<double>(options.rows),
                               .eps = options.eps,
                               .momentum = options.momentum,
                               .running_mean = running_mean,
                               .running_var = running_var,
                               .save_mean = save_mean,
                               .save_invstd = save_invstd};
  launch("batch_norm_finish_statistics", batch_norm_finish_statistics_kernel<T>,
         {finishing_blocks(layout)}, {kFinishThreads}, 0, stream, layout, partials, x, to);
  normalise(stream, options, make_scaling<T>(options, save_mean, save_invstd, false, gamma, beta),
            x, residual, y);
}

template <typename T>
void batch_norm_forward_eval(Stream stream, const BatchNormOptions& options, const T* x,
                             const T* residual, const float* gamma, const float* beta,
                             const float* running_mean, const float* running_var, T* y) {
  if (is_empty(options)) return;
  normalise(stream, options, make_scaling<T>(options, running_mean, running_var, true, gamma, beta),
            x, residual, y);
}

template <typename T>
void batch_norm_backward(Stream stream, const BatchNormOptions& options, const T* x, const T* y,
                         const T* dy, const float* gamma, const float* beta, const float* save_mean,
                         const float* save_invstd, T* dx, T* dresidual, float* dgamma, float* dbeta,
                         bool accumulate, void* workspace) {
  if (is_empty(options)) return;
  const BatchNormLayout summing = summing_layout(options.rows, options.channels, kVec<T>);
  const BatchNormScaling by = make_scaling<T>(options, save_mean, save_invstd, false, gamma, beta);
  const BatchNormUpstream<T> from{
      .x = x, .y = y, .dy = dy, .aligned = aligned16(x, y, dy, dx, dresidual)};
  auto* partials = static_cast<float*>(workspace);
  float* offset = partials + partial_floats(summing);
  float* slope = offset + options.channels;
  launch("batch_norm_gradient_sums", batch_norm_gradient_sums_kernel<T>, {blocks_of(summing)},
         {threads_of(summing)}, 0, stream, summing, by, from, partials);
  const BatchNormSums to{.rows = static_cast<double>(options.rows),
                         .dgamma = dgamma,
                         .dbeta = dbeta,
                         .accumulate = accumulate,
                         .offset = offset,
                         .slope = slope};
  launch("batch_norm_finish_gradients", batch_norm_finish_gradients_kernel<T>,
         {finishing_blocks(summing)}, {kFinishThreads}, 0, stream, summing, partials, by, from, to);
  const BatchNormLayout writing = writing_layout(options.rows, options.channels, kVec<T>);
  const BatchNormBackward<T> out{
      .offset = offset, .slope = slope, .dx = dx, .dresidual = dresidual};
  launch("batch_norm_input_gradient", batch_norm_input_gradient_kernel<T>, {blocks_of(writing)},
         {threads_of(writing)}, 0, stream, writing, by, from, out);
}

void batch_norm_fold(Stream stream, const float* gamma, const float* beta,
                     const float* running_mean, const float* running_var, double eps,
                     const float* w, const float* bias, float* folded_w, float* folded_bias,
                     std::int64_t o, std::int64_t k) {
  if (o <= 0) return;
  const BatchNormScaling by =
      make_scaling<float>({.eps = eps}, running_mean, running_var, true, gamma, beta);
  const std::int64_t vectors = k % kVec<float> == 0 && aligned16(w, folded_w) ? k / 4 : 0;
  launch("batch_norm_fold", batch_norm_fold_kernel, {divide_up(o, kBatchNormThreads / 32)},
         {kBatchNormThreads}, 0, stream, by, w, bias, folded_w, folded_bias, o, k, vectors);
}

#define NF_STORED(T)                                                                               \
  template void batch_norm_forward_train(Stream, const BatchNormOptions&, const T*, const T*,      \
                                         const float*, const float*, float*, float*, T*, float*,   \
                                         float*, void*);                                           \
  template void batch_norm_forward_eval(Stream, const BatchNormOptions&, const T*, const T*,       \
                                        const float*, const float*, const float*, const float*,    \
                                        T*);                                                       \
  template void batch_norm_backward(Stream, const BatchNormOptions&, const T*, const T*, const T*, \
                                    const float*, const float*, const float*, const float*, T*,    \
                                    T*, float*, float*, bool, void*)
NF_STORED(float);
NF_STORED(bf16);
NF_STORED(f16);
#undef NF_STORED

}  // namespace nf::NF_TARGET
