#include "kernels/depthwise_conv2d.cuh"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "kernels/depthwise_weight.cuh"

namespace nf::NF_TARGET {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMostPixels = 1 << 28;  // along an axis: sums of a few stay in 32 bits

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

void check_sizes(const char* name, const DepthwiseProblem& p) {
  const std::int64_t most = std::max({p.h, p.w, p.out_h, p.out_w, p.kh, p.kw, p.stride, p.padding});
  const std::int64_t rows = p.n * std::max(p.h, p.out_h);
  if (most >= kMostPixels || rows > kMost || p.kh * p.kw > kMost ||
      std::min({p.kh, p.kw, p.stride}) < 1)
    throw KernelError(std::string(name) + ": sizes along an axis must be below 2^28, rows of all " +
                      "images and taps below 2^31, taps and stride at least 1, got " +
                      std::to_string(most) + ", " + std::to_string(rows) + ", " +
                      std::to_string(p.kh) + "x" + std::to_string(p.kw) + ", stride " +
                      std::to_string(p.stride));
}

bool has_own_kernel(const DepthwiseProblem& p) {
  return p.kh == p.kw && (p.kh == 3 || p.kh == 5) && p.stride <= 2;
}

template <typename T, typename... Pointers>
bool in_vectors(const DepthwiseProblem& p, const Pointers*... a) {
  return p.c % kVec<T> == 0 && aligned16(a...);
}

/// Evenly filled chunks of at most `most`: how many in each.
std::int64_t even_chunk(std::int64_t count, std::int64_t most) {
  return ceil_div(count, ceil_div(count, most));
}

template <typename T>
using PassKernel = void (*)(DepthwisePass, const T*, const T*, const T*, T*);

/// Blocks of p.lanes of `all_lanes` for the channels, some columns and many rows: neighbouring rows
/// share most of their inputs.
template <typename T>
void launch_pass(const char* name, PassKernel<T> kernel, Stream stream, DepthwisePass p,
                 std::int64_t all_lanes, const T* in, const T* w, const T* bias, T* out) {
  const std::int64_t lanes = p.lanes, row_groups = p.row_groups, groups = even_chunk(row_groups, 4);
  const std::int64_t rows = std::min<std::int64_t>(kDepthwiseThreads / (lanes * groups), p.rows);
  const std::int64_t chunks = ceil_div(all_lanes, lanes), tiles = ceil_div(row_groups, groups);
  const std::int64_t blocks = chunks * tiles * ceil_div(p.rows, rows);
  if (blocks > kMost)
    throw KernelError(std::string(name) + ": " + std::to_string(blocks) +
                      " blocks are too many for a grid");
  p.groups = static_cast<std::int32_t>(groups);
  p.block_rows = static_cast<std::int32_t>(rows);
  p.by_lanes = make_divider(lanes);
  p.by_groups = make_divider(groups);
  p.by_chunks = make_divider(chunks);
  p.by_tiles = make_divider(tiles);
  p.by_out_h = make_divider(p.out_h);
  p.by_stride = make_divider(p.stride);
  launch(name, kernel, {blocks}, {lanes * groups * rows}, 0, stream, p, in, w, bias, out);
}

template <typename T, Reach reach>
void run_pass(const char* name, Stream stream, DepthwisePass p, const T* in, const T* w,
              const T* bias, T* out) {
  const std::int64_t vectors = p.c / kVec<T>;
  // Where the groups start one column before the row.
  const std::int32_t before = reach == Reach::gather2 ? p.padding % 2 : 0;
  p.lanes = static_cast<std::int32_t>(even_chunk(vectors, kChannelVectors));
  p.row_groups = (p.out_w + before + kOutputs - 1) / kOutputs;
  launch_pass(name, p.kh == 3 ? depthwise_kernel<T, 3, reach> : depthwise_kernel<T, 5, reach>,
              stream, p, vectors, in, w, bias, out);
}

template <typename T>
void run_any_pass(const char* name, Stream stream, DepthwisePass p, const T* in, const T* w,
                  const T* bias, T* out) {
  p.lanes = static_cast<std::int32_t>(even_chunk(p.c, kChannelLanes));
  p.row_groups = (p.out_w + kOutputs - 1) / kOutputs;
  launch_pass(name, depthwise_any_kernel<T>, stream, p, p.c, in, w, bias, out);
}

/// How the rows of dy are shared out. Enough blocks for a large GPU, whichever runs; but a part
/// sums over at least four pixels for each tap, so that the partial sums stay small beside dy.
struct WeightParts {
  explicit WeightParts(const DepthwiseProblem& p) {
    const std::int64_t all = p.n * p.out_h, taps = p.kh * p.kw;
    const std::int64_t tap_rows = has_own_kernel(p) ? 1 : p.kh * ceil_div(p.kw, kTapsTogether);
    const std::int64_t wanted =
        ceil_div(512, std::max<std::int64_t>(ceil_div(p.c, 64), 1) * tap_rows);
    const std::int64_t least = ceil_div(4 * taps, std::max<std::int64_t>(p.out_w, 1));
    rows =
        std::max<std::int64_t>(ceil_div(all, std::clamp<std::int64_t>(all / least, 1, wanted)), 1);
    count = std::max<std::int64_t>(ceil_div(all, rows), 1);
  }
  std::int64_t rows, count;
};

template <typename T>
using WeightKernel = void (*)(DepthwiseWeightPass, const T*, const T*, float*);

/// Blocks of p.lanes of `all_lanes` for the channels, each for one of `tap_rows` groups of taps and
/// for a part of dy, with as many slots of `slot_threads` as fit.
template <typename T>
void launch_weight(const char* name, WeightKernel<T> kernel, Stream stream,
                   const WeightParts& parts, DepthwiseWeightPass p, std::int64_t all_lanes,
                   std::int64_t tap_rows, std::int64_t slot_threads, const T* x, const T* dy,
                   float* partial) {
  const std::int64_t chunks = ceil_div(all_lanes, p.lanes);
  const std::int64_t blocks = chunks * tap_rows * parts.count, items = parts.rows * p.row_items;
  if (blocks > kMost || items > kMost - kDepthwiseThreads)
    throw KernelError(std::string(name) + ": " + std::to_string(blocks) + " blocks of " +
                      std::to_string(items) + " items are too many for a grid");
  p.part_rows = static_cast<std::int32_t>(parts.rows);
  p.by_chunks = make_divider(chunks);
  p.by_lanes = make_divider(p.lanes);
  p.by_row_items = make_divider(std::max(p.row_items, 1));
  p.by_out_h = make_divider(std::max(p.out_h, 1));
  p.by_kh = make_divider(p.kh);
  p.by_tap_groups = make_divider(ceil_div(p.kw, kTapsTogether));
  launch(name, kernel, {blocks}, {kDepthwiseThreads / slot_threads * slot_threads}, 0, stream, p, x,
         dy, partial);
}

DepthwisePass forward_pass(const DepthwiseProblem& p) {
  return {.in_h = static_cast<std::int32_t>(p.h),
          .in_w = static_cast<std::int32_t>(p.w),
          .out_h = static_cast<std::int32_t>(p.out_h),
          .out_w = static_cast<std::int32_t>(p.out_w),
          .kh = static_cast<std::int32_t>(p.kh),
          .kw = static_cast<std::int32_t>(p.kw),
          .stride = static_cast<std::int32_t>(p.stride),
          .padding = static_cast<std::int32_t>(p.padding),
          .c = p.c,
          .rows = p.n * p.out_h};
}

bool writes_nothing(const DepthwisePass& p) { return p.rows == 0 || p.out_w == 0 || p.c == 0; }

DepthwisePass backward_pass(const DepthwiseProblem& p) {
  DepthwisePass pass = forward_pass(p);
  std::swap(pass.in_h, pass.out_h);
  std::swap(pass.in_w, pass.out_w);
  pass.rows = p.n * p.h;
  return pass;
}

}  // namespace

template <typename T>
void depthwise_forward(Stream stream, const DepthwiseProblem& problem, const T* x, const T* w,
                       const T* bias, T* y) {
  const char* name = "depthwise_forward";
  check_sizes(name, problem);
  const DepthwisePass pass = forward_pass(problem);
  if (writes_nothing(pass)) return;
  if (!has_own_kernel(problem) || !in_vectors<T>(problem, x, w, y))
    run_any_pass(name, stream, pass, x, w, bias, y);
  else if (pass.stride == 1)
    run_pass<T, Reach::stride1>(name, stream, pass, x, w, bias, y);
  else
    run_pass<T, Reach::stride2>(name, stream, pass, x, w, bias, y);
}

template <typename T>
void depthwise_backward_input(Stream stream, const DepthwiseProblem& problem, const T* dy,
                              const T* w, T* dx, bool accumulate) {
  const char* name = "depthwise_backward_input";
  check_sizes(name, problem);
  DepthwisePass pass = backward_pass(problem);
  pass.accumulate = accumulate;
  const T* no_bias = nullptr;
  if (writes_nothing(pass)) return;
  if (!has_own_kernel(problem) || !in_vectors<T>(problem, dy, w, dx)) {
    pass.gather = true;
    run_any_pass(name, stream, pass, dy, w, no_bias, dx);
  } else if (pass.stride == 1) {
    pass.turned = true;
    pass.padding = pass.kh - 1 - pass.padding;
    run_pass<T, Reach::stride1>(name, stream, pass, dy, w, no_bias, dx);
  } else {
    run_pass<T, Reach::gather2>(name, stream, pass, dy, w, no_bias, dx);
  }
}

std::int64_t depthwise_backward_weight_workspace(const DepthwiseProblem& problem) {
  return WeightParts(problem).count * problem.kh * problem.kw * problem.c *
         static_cast<std::int64_t>(sizeof(float));
}

template <typename T>
void depthwise_backward_weight(Stream stream, const DepthwiseProblem& problem, const T* x,
                               const T* dy, T* dw, bool accumulate, void* workspace) {
  const char* name = "depthwise_backward_weight";
  check_sizes(name, problem);
  const DepthwiseProblem& p = problem;
  if (p.c == 0) return;
  DepthwiseWeightPass pass{.h = static_cast<std::int32_t>(p.h),
                           .w = static_cast<std::int32_t>(p.w),
                           .out_h = static_cast<std::int32_t>(p.out_h),
                           .out_w = static_cast<std::int32_t>(p.out_w),
                           .kh = static_cast<std::int32_t>(p.kh),
                           .kw = static_cast<std::int32_t>(p.kw),
                           .stride = static_cast<std::int32_t>(p.stride),
                           .padding = static_cast<std::int32_t>(p.padding),
                           .c = p.c,
                           .rows = p.n * p.out_h};
  const WeightParts parts(p);
  auto* partial = static_cast<float*>(workspace);
  if (has_own_kernel(p) && in_vectors<T>(p, x, dy)) {
    const std::int64_t vectors = p.c / kVec<T>;
    pass.lanes = static_cast<std::int32_t>(even_chunk(vectors, kChannelVectors));
    pass.row_items = (pass.out_w + kOutputs - 1) / kOutputs;
    const WeightKernel<T> kernel =
        p.kh == 3
            ? (p.stride == 1 ? depthwise_weight_kernel<T, 3, 1> : depthwise_weight_kernel<T, 3, 2>)
            : (p.stride == 1 ? depthwise_weight_kernel<T, 5, 1> : depthwise_weight_kernel<T, 5, 2>);
    launch_weight(name, kernel, stream, parts, pass, vectors, 1, pass.lanes * p.kh, x, dy, partial);
  } else {
    pass.lanes = static_cast<std::int32_t>(even_chunk(p.c, kChannelLanes));
    pass.row_items = pass.out_w;
    launch_weight(name, depthwise_weight_any_kernel<T>, stream, parts, pass, p.c,
                  p.kh * ceil_div(p.kw, kTapsTogether), pass.lanes, x, dy, partial);
  }
  const std::int64_t taps = p.kh * p.kw;
  const std::int64_t slots = parts.count <= 4 ? 4 : parts.count <= 8 ? 8 : kMostReduceSlots;
  launch("depthwise_backward_weight_reduce", depthwise_weight_reduce_kernel<T>,
         {ceil_div(taps * p.c, kReduceElements)}, {slots * kReduceElements}, 0, stream, parts.count,
         taps, p.c, partial, dw, accumulate);
}

#define NF_STORED(T)                                                                               \
  template void depthwise_forward(Stream, const DepthwiseProblem&, const T*, const T*, const T*,   \
                                  T*);                                                             \
  template void depthwise_backward_input(Stream, const DepthwiseProblem&, const T*, const T*, T*,  \
                                         bool);                                                    \
  template void depthwise_backward_weight(Stream, const DepthwiseProblem&, const T*, const T*, T*, \
                                          bool, void*)
NF_STORED(float);
NF_STORED(bf16);
NF_STORED(f16);
#undef NF_STORED

}  // namespace nf::NF_TARGET
