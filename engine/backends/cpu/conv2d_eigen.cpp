// Convolution as matrix products (Eigen) over gathered patches, a bounded tile of them at a time.
#include <algorithm>

#include "engine/backends/cpu/conv2d_paths.h"
#include "engine/backends/cpu/matrix_product.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kTileBytes = std::int64_t{1} << 20;
// Output channels (rows of the weight gradient) that are worth a thread.
constexpr std::int64_t kChannelGrain = 8;

// A convolution cut into output rows (n, oh); a patch is what one output cell of a group sees.
struct Geometry {
  const Conv2dProblem& p;
  std::int64_t out_h = p.out_h(), out_w = p.out_w();
  std::int64_t out_rows = p.n * out_h;
  std::int64_t group_c = p.c / p.groups, group_o = p.o / p.groups;
  std::int64_t patch = p.kh * p.kw * group_c;
  // Patches are the input itself.
  bool pointwise = p.kh == 1 && p.kw == 1 && p.stride == 1 && p.padding == 0;

  explicit Geometry(const Conv2dProblem& problem) : p(problem) {}
};

// How a pass is cut: one tile of patches for each chunk of threads, of some output rows each. The
// workspace and the loops both go by it.
struct Tiling {
  std::int64_t rows;      // output rows in a tile: what fills it, or all that a chunk has
  std::int64_t elements;  // of a tile
  std::int64_t count;     // tiles

  Tiling(const Geometry& g, Pass pass, int threads) {
    const Conv2dProblem& p = g.p;
    std::int64_t most = g.out_rows;
    count = 1;  // the weight gradient's tile is gathered by all threads together
    if (pass == Pass::forward) {
      count = chunks(threads, g.out_rows, 1);
      most = (g.out_rows + count - 1) / count;
    } else if (pass == Pass::backward_input) {
      count = chunks(threads, p.n, 1);
      most = g.out_h;
    }
    const std::int64_t row_elements = g.out_w * g.patch;
    const std::int64_t row_bytes = std::max<std::int64_t>(row_elements * size_of(p.dtype), 1);
    rows = std::clamp<std::int64_t>(kTileBytes / row_bytes, 1, std::max<std::int64_t>(most, 1));
    elements = rows * row_elements;
  }
};

// Calls fn(cells of the patch, cells of the image, count) for the runs of one output row that lie
// inside the image, and gap(cells, count) for the padding.
template <typename Fn, typename Gap>
void for_patches(const Geometry& g, std::int64_t group, std::int64_t out_row, const Fn& fn,
                 const Gap& gap) {
  const Conv2dProblem& p = g.p;
  const std::int64_t image = out_row / g.out_h, oh = out_row % g.out_h;
  for (std::int64_t ow = 0; ow < g.out_w; ++ow)
    for (std::int64_t kh = 0; kh < p.kh; ++kh) {
      const std::int64_t ih = oh * p.stride - p.padding + kh;
      const std::int64_t first = ow * p.stride - p.padding;  // column of kw = 0
      const std::int64_t at = (ow * p.kh + kh) * p.kw * g.group_c;
      const bool inside = ih >= 0 && ih < p.h;
      const std::int64_t low = inside ? std::clamp<std::int64_t>(-first, 0, p.kw) : p.kw;
      const std::int64_t high = inside ? std::clamp<std::int64_t>(p.w - first, low, p.kw) : p.kw;
      gap(at, low * g.group_c);
      const std::int64_t from = ((image * p.h + ih) * p.w + first) * p.c + group * g.group_c;
      if (p.groups == 1)  // neighbours in the kernel's row are neighbours in memory
        fn(at + low * p.c, from + low * p.c, (high - low) * p.c);
      else
        for (std::int64_t kw = low; kw < high; ++kw)
          fn(at + kw * g.group_c, from + kw * p.c, g.group_c);
      gap(at + high * g.group_c, (p.kw - high) * g.group_c);
    }
}

// patches (rows of `begin`..`end` * out_w, patch)
template <typename T>
void gather(const Geometry& g, std::int64_t group, std::int64_t begin, std::int64_t end, const T* x,
            T* patches) {
  for (std::int64_t row = begin; row < end; ++row) {
    T* out = patches + (row - begin) * g.out_w * g.patch;
    for_patches(
        g, group, row,
        [&](std::int64_t to, std::int64_t from, std::int64_t count) {
          std::copy_n(x + from, count, out + to);
        },
        [&](std::int64_t to, std::int64_t count) { std::fill_n(out + to, count, T{0}); });
  }
}

// Adds the patches' cells to where they were gathered from.
template <typename T>
void scatter(const Geometry& g, std::int64_t group, std::int64_t begin, std::int64_t end,
             const T* patches, T* dx) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* in = patches + (row - begin) * g.out_w * g.patch;
    for_patches(
        g, group, row,
        [&](std::int64_t from, std::int64_t to, std::int64_t count) {
          T* target = dx + to;
          const T* source = in + from;
#pragma omp simd
          for (std::int64_t i = 0; i < count; ++i) target[i] += source[i];
        },
        [](std::int64_t, std::int64_t) {});
  }
}

// The patches of `cells` output cells from output row `row` on: (cells, patch), gathered in `tile`
// unless the input holds them as they are.
template <typename T>
MatrixView<const T> patches(const Geometry& g, std::int64_t group, std::int64_t row,
                            std::int64_t cells, const T* x, const T* tile) {
  if (!g.pointwise) return {tile, cells, g.patch};
  return {x + row * g.out_w * g.p.c + group * g.group_c, cells, g.patch, g.p.c};
}

// (output channels of the group, patch)
template <typename T>
MatrixView<const T> filters(const Geometry& g, std::int64_t group, const T* w) {
  return {w + group * g.group_o * g.patch, g.group_o, g.patch};
}

}  // namespace

std::int64_t gemm_conv2d_workspace(const Conv2dProblem& problem, Pass pass, int threads) {
  const Geometry g(problem);
  if (g.pointwise) return 0;
  const Tiling tiling(g, pass, threads);
  return tiling.count * tiling.elements * size_of(problem.dtype);
}

template <typename T>
void GemmConv2d<T>::forward(const T* x, const T* w, const T* bias, T* y) const {
  const Geometry g(problem);
  T* tiles = reinterpret_cast<T*>(workspace.data);
  const Tiling tiling(g, Pass::forward, threads);
  parallel_for(threads, g.out_rows, 1, [&](std::int64_t begin, std::int64_t end, int chunk) {
    T* tile = tiles + (g.pointwise ? 0 : chunk * tiling.elements);
    for (std::int64_t row = begin; row < end; row += tiling.rows) {
      const std::int64_t stop = std::min(end, row + tiling.rows), cells = (stop - row) * g.out_w;
      for (std::int64_t group = 0; group < problem.groups; ++group) {
        if (!g.pointwise) gather(g, group, row, stop, x, tile);
        const MatrixView<T> out{y + row * g.out_w * problem.o + group * g.group_o, cells, g.group_o,
                                problem.o};
        matrix_product<T>(patches(g, group, row, cells, x, tile), filters(g, group, w),
                          Factors::right_transposed, GradMode::overwrite, out);
        if (bias != nullptr) add_to_rows(bias + group * g.group_o, out);
      }
    }
  });
}

template <typename T>
void GemmConv2d<T>::backward_input(const T* dy, const T* w, T* dx, GradMode mode) const {
  const Geometry g(problem);
  const bool overwrite = mode == GradMode::overwrite;
  T* tiles = reinterpret_cast<T*>(workspace.data);
  const auto upstream = [&](std::int64_t group, std::int64_t row, std::int64_t cells) {
    return MatrixView<const T>{dy + row * g.out_w * problem.o + group * g.group_o, cells, g.group_o,
                               problem.o};
  };
  if (g.pointwise) {
    parallel_for(threads, g.out_rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      const std::int64_t cells = (end - begin) * g.out_w;
      for (std::int64_t group = 0; group < problem.groups; ++group)
        matrix_product<T>(
            upstream(group, begin, cells), filters(g, group, w), Factors::plain, mode,
            {dx + begin * g.out_w * problem.c + group * g.group_c, cells, g.group_c, problem.c});
    });
    return;
  }
  const Tiling tiling(g, Pass::backward_input, threads);
  const std::int64_t image_elements = problem.h * problem.w * problem.c;
  // Patches overlap within an image only: a thread has images to itself.
  parallel_for(threads, problem.n, 1, [&](std::int64_t begin, std::int64_t end, int chunk) {
    T* tile = tiles + chunk * tiling.elements;
    if (overwrite) std::fill(dx + begin * image_elements, dx + end * image_elements, T{0});
    for (std::int64_t row = begin * g.out_h; row < end * g.out_h; row += tiling.rows) {
      const std::int64_t stop = std::min(end * g.out_h, row + tiling.rows);
      const std::int64_t cells = (stop - row) * g.out_w;
      for (std::int64_t group = 0; group < problem.groups; ++group) {
        matrix_product<T>(upstream(group, row, cells), filters(g, group, w), Factors::plain,
                          GradMode::overwrite, {tile, cells, g.patch});
        scatter(g, group, row, stop, static_cast<const T*>(tile), dx);
      }
    }
  });
}

template <typename T>
void GemmConv2d<T>::backward_weight(const T* x, const T* dy, T* dw, GradMode mode) const {
  const Geometry g(problem);
  T* tile = reinterpret_cast<T*>(workspace.data);
  const std::int64_t step =
      g.pointwise ? g.out_rows : Tiling(g, Pass::backward_weight, threads).rows;
  // Threads share a tile and own output channels: the sum has one order whatever their number.
  for (std::int64_t group = 0; group < problem.groups; ++group)
    for (std::int64_t row = 0; row < g.out_rows; row += step) {
      const std::int64_t stop = std::min(g.out_rows, row + step), cells = (stop - row) * g.out_w;
      if (!g.pointwise)
        parallel_for(threads, stop - row, 1, [&](std::int64_t begin, std::int64_t end, int) {
          gather(g, group, row + begin, row + end, x, tile + begin * g.out_w * g.patch);
        });
      const GradMode tile_mode = row == 0 ? mode : GradMode::accumulate;
      parallel_for(
          threads, g.group_o, kChannelGrain, [&](std::int64_t begin, std::int64_t end, int) {
            const std::int64_t first = group * g.group_o + begin, count = end - begin;
            matrix_product<T>({dy + row * g.out_w * problem.o + first, cells, count, problem.o},
                              patches(g, group, row, cells, x, tile), Factors::left_transposed,
                              tile_mode, {dw + first * g.patch, count, g.patch});
          });
    }
}

template struct GemmConv2d<float>;
template struct GemmConv2d<double>;

}  // namespace nf::cpu
