// Batch norm over (rows, channels). Blocks of rows that stay in the cache get their own mean and
// sum of squares, merged as in Chan, Golub, LeVeque: "Algorithms for computing the sample
// variance", 1983: one pass over memory, and no difference of large squares.
#include <array>
#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

std::int64_t row_grain(std::int64_t channels) {
  return std::max<std::int64_t>(1, kGrain / channels);
}

std::int64_t block_rows(std::int64_t channels) {
  return std::clamp<std::int64_t>(8192 / channels, 16, 128);
}

// Per chunk of rows two arrays of doubles (mean and squares, or the two gradient sums) and two of T
// for the block at hand; then three of T that all chunks read.
template <typename T>
struct Layout {
  double* first;
  double* second;
  T* block_first;
  T* block_second;
  T* scale;
  T* offset;
  T* slope;
  std::int64_t bytes;

  Layout(Workspace workspace, int parts, std::int64_t channels) {
    Sections sections(workspace);
    first = sections.take<double>(parts * channels);
    second = sections.take<double>(parts * channels);
    block_first = sections.take<T>(parts * channels);
    block_second = sections.take<T>(parts * channels);
    scale = sections.take<T>(channels);
    offset = sections.take<T>(channels);
    slope = sections.take<T>(channels);
    bytes = sections.bytes();
  }
};

int parts_of(const BatchNormProblem& problem, int threads) {
  return chunks(threads, problem.rows, row_grain(problem.channels));
}

// Welford's mean and sum of squared deviations of rows begin..end, per channel.
template <typename T>
void moments(const T* x, std::int64_t channels, std::int64_t begin, std::int64_t end, double* mean,
             double* squares, T* block_mean, T* block_squares) {
  std::fill(mean, mean + channels, 0.0);
  std::fill(squares, squares + channels, 0.0);
  const std::int64_t step = block_rows(channels);
  for (std::int64_t start = begin; start < end; start += step) {
    const std::int64_t stop = std::min(end, start + step);
    const T inverse = T{1} / static_cast<T>(stop - start);
    std::fill(block_mean, block_mean + channels, T{0});
    std::fill(block_squares, block_squares + channels, T{0});
    std::int64_t row = start;
    for (; row + 4 <= stop; row += 4) {
      const T* cells = x + row * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c)
        block_mean[c] +=
            (cells[c] + cells[c + channels]) + (cells[c + 2 * channels] + cells[c + 3 * channels]);
    }
    for (; row < stop; ++row) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) block_mean[c] += x[row * channels + c];
    }
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) block_mean[c] *= inverse;
    for (row = start; row + 2 <= stop; row += 2) {
      const T* cells = x + row * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const T d0 = cells[c] - block_mean[c];
        const T d1 = cells[c + channels] - block_mean[c];
        block_squares[c] += d0 * d0 + d1 * d1;
      }
    }
    for (; row < stop; ++row) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const T d = x[row * channels + c] - block_mean[c];
        block_squares[c] += d * d;
      }
    }
    const double before = static_cast<double>(start - begin);
    const double added = static_cast<double>(stop - start);
    const double share = added / (before + added);
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const double delta = static_cast<double>(block_mean[c]) - mean[c];
      mean[c] += delta * share;
      squares[c] += static_cast<double>(block_squares[c]) + delta * delta * before * share;
    }
  }
}

// y = activation((x - mean) * scale + beta + residual) for rows begin..end.
template <bool with_residual, bool activate, typename T>
void normalise(const T* x, const T* residual, std::int64_t channels, std::int64_t begin,
               std::int64_t end, const T* mean, const T* scale, const T* beta, T bound, T* y) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t at = row * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      T value = (x[at + c] - mean[c]) * scale[c] + beta[c];
      if constexpr (with_residual) value += residual[at + c];
      if constexpr (activate) {
        value = value < T{0} ? T{0} : value;
        value = bound < value ? bound : value;
      }
      y[at + c] = value;
    }
  }
}

enum class Mask { none, from_y, from_x };

template <typename Fn>
void with_mask(Mask mask, const Fn& fn) {
  switch (mask) {
    case Mask::none:
      return fn(std::integral_constant<Mask, Mask::none>{});
    case Mask::from_y:
      return fn(std::integral_constant<Mask, Mask::from_y>{});
    case Mask::from_x:
      return fn(std::integral_constant<Mask, Mask::from_x>{});
  }
}

// The operands of the backward pass that vary by element, and what the mask is made of.
template <typename T>
struct Upstream {
  const T* x;   // (rows, channels)
  const T* y;   // (rows, channels), for Mask::from_y
  const T* dy;  // (rows, channels)
  const T* mean;
  const T* scale;
  const T* beta;
  T bound;

  // dy behind the activation's mask, the latter exactly as the forward pass computed it.
  template <Mask mask>
  T masked(std::int64_t at, std::int64_t c) const {
    if constexpr (mask == Mask::none) return dy[at + c];
    T value;
    if constexpr (mask == Mask::from_y)
      value = y[at + c];
    else
      value = (x[at + c] - mean[c]) * scale[c] + beta[c];
    return ((value > T{0}) & (value < bound)) ? dy[at + c] : T{0};
  }
};

// sums: over rows begin..end of g and of g * (x - mean), g the masked gradient.
template <Mask mask, typename T>
void gradient_sums(const Upstream<T>& in, std::int64_t channels, std::int64_t begin,
                   std::int64_t end, double* sums, double* products, T* block_sums,
                   T* block_products) {
  std::fill(sums, sums + channels, 0.0);
  std::fill(products, products + channels, 0.0);
  const std::int64_t step = block_rows(channels);
  for (std::int64_t start = begin; start < end; start += step) {
    const std::int64_t stop = std::min(end, start + step);
    std::fill(block_sums, block_sums + channels, T{0});
    std::fill(block_products, block_products + channels, T{0});
    std::int64_t row = start;
    for (; row + 2 <= stop; row += 2) {
      const std::int64_t at = row * channels, next = at + channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const T g0 = in.template masked<mask>(at, c);
        const T g1 = in.template masked<mask>(next, c);
        block_sums[c] += g0 + g1;
        block_products[c] += g0 * (in.x[at + c] - in.mean[c]) + g1 * (in.x[next + c] - in.mean[c]);
      }
    }
    for (; row < stop; ++row) {
      const std::int64_t at = row * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const T g = in.template masked<mask>(at, c);
        block_sums[c] += g;
        block_products[c] += g * (in.x[at + c] - in.mean[c]);
      }
    }
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      sums[c] += static_cast<double>(block_sums[c]);
      products[c] += static_cast<double>(block_products[c]);
    }
  }
}

// dx = scale * g - offset - (x - mean) * slope, and g itself for the residual.
template <Mask mask, bool with_residual, typename T>
void input_gradient(const Upstream<T>& in, std::int64_t channels, std::int64_t begin,
                    std::int64_t end, const T* offset, const T* slope, T* dx, T* dresidual) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t at = row * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const T g = in.template masked<mask>(at, c);
      dx[at + c] = in.scale[c] * g - offset[c] - (in.x[at + c] - in.mean[c]) * slope[c];
      if constexpr (with_residual) dresidual[at + c] = g;
    }
  }
}

}  // namespace

std::int64_t CpuBackend::batch_norm_workspace(const BatchNormProblem& problem) const {
  std::int64_t bytes = 0;
  with_real("batch_norm", problem.dtype, [&](auto scalar) {
    bytes = Layout<decltype(scalar)>({}, parts_of(problem, threads_), problem.channels).bytes;
  });
  return bytes;
}

void CpuBackend::batch_norm_forward_train(const BatchNormProblem& problem, ConstView x,
                                          ConstView residual, ConstView gamma, ConstView beta,
                                          View running_mean, View running_var, View y,
                                          View save_mean, View save_invstd, Workspace workspace) {
  check_workspace("batch_norm", workspace, batch_norm_workspace(problem));
  with_real("batch_norm", problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    constexpr std::string_view op = "batch_norm";
    const std::int64_t rows = problem.rows, channels = problem.channels;
    const T* in = elements<T>(op, x);
    const T* added = elements<T>(op, residual);
    const T* g = elements<T>(op, gamma);
    const T* b = elements<T>(op, beta);
    T* run_mean = elements<T>(op, running_mean);
    T* run_var = elements<T>(op, running_var);
    T* mean = elements<T>(op, save_mean);
    T* invstd = elements<T>(op, save_invstd);
    T* out = elements<T>(op, y);
    const std::int64_t grain = row_grain(channels);
    const int parts = parts_of(problem, threads_);
    const Layout<T> layout(workspace, parts, channels);

    parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int part) {
      const std::int64_t at = part * channels;
      moments(in, channels, begin, end, layout.first + at, layout.second + at,
              layout.block_first + at, layout.block_second + at);
    });
    for (int part = 1; part < parts; ++part) {
      const std::int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
      const double before = static_cast<double>(begin),
                   added_rows = static_cast<double>(end - begin);
      const double share = added_rows / (before + added_rows);
      for (std::int64_t c = 0; c < channels; ++c) {
        const double delta = layout.first[part * channels + c] - layout.first[c];
        layout.first[c] += delta * share;
        layout.second[c] += layout.second[part * channels + c] + delta * delta * before * share;
      }
    }
    const double count = static_cast<double>(rows);
    const double momentum = problem.momentum;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double variance = layout.second[c] / count;
      mean[c] = static_cast<T>(layout.first[c]);
      invstd[c] = static_cast<T>(1.0 / std::sqrt(variance + problem.eps));
      layout.scale[c] = g[c] * invstd[c];
      if (rows == 1) continue;
      run_mean[c] =
          static_cast<T>((1 - momentum) * double{run_mean[c]} + momentum * layout.first[c]);
      run_var[c] = static_cast<T>((1 - momentum) * double{run_var[c]} +
                                  momentum * layout.second[c] / (count - 1));
    }

    const T bound = static_cast<T>(upper_bound(problem.activation));
    with_flag(bool{residual}, [&](auto with_residual) {
      with_flag(problem.activation != Activation::none, [&](auto activate) {
        parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int) {
          normalise<with_residual, activate>(in, added, channels, begin, end, mean, layout.scale, b,
                                             bound, out);
        });
      });
    });
  });
}

void CpuBackend::batch_norm_forward_eval(const BatchNormProblem& problem, ConstView x,
                                         ConstView residual, ConstView gamma, ConstView beta,
                                         ConstView running_mean, ConstView running_var, View y) {
  with_real("batch_norm", problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    constexpr std::string_view op = "batch_norm";
    const std::int64_t rows = problem.rows, channels = problem.channels;
    const T* in = elements<T>(op, x);
    const T* added = elements<T>(op, residual);
    const T* g = elements<T>(op, gamma);
    const T* b = elements<T>(op, beta);
    const T* mean = elements<T>(op, running_mean);
    const T* variance = elements<T>(op, running_var);
    T* out = elements<T>(op, y);
    const T bound = static_cast<T>(upper_bound(problem.activation));
    const double eps = problem.eps;
    constexpr std::int64_t kLanes = 512;
    with_flag(bool{residual}, [&](auto with_residual) {
      with_flag(problem.activation != Activation::none, [&](auto activate) {
        parallel_simd(
            threads_, rows, row_grain(channels), [=](std::int64_t begin, std::int64_t end, int) {
              // There is no workspace: the scale of some channels at a time fits on the stack.
              std::array<T, kLanes> scale;
              for (std::int64_t first = 0; first < channels; first += kLanes) {
                const std::int64_t lanes = std::min(kLanes, channels - first);
                for (std::int64_t c = 0; c < lanes; ++c)
                  scale[static_cast<std::size_t>(c)] = static_cast<T>(
                      double{g[first + c]} / std::sqrt(double{variance[first + c]} + eps));
                for (std::int64_t row = begin; row < end; ++row) {
                  const std::int64_t at = row * channels + first;
                  normalise<with_residual, activate>(in + at, added + (added ? at : 0), lanes, 0, 1,
                                                     mean + first, scale.data(), b + first, bound,
                                                     out + at);
                }
              }
            });
      });
    });
  });
}

void CpuBackend::batch_norm_backward(const BatchNormProblem& problem, ConstView x, ConstView y,
                                     ConstView dy, ConstView gamma, ConstView beta,
                                     ConstView save_mean, ConstView save_invstd, View dx,
                                     View dresidual, View dgamma, View dbeta, GradMode mode,
                                     Workspace workspace) {
  check_workspace("batch_norm_backward", workspace, batch_norm_workspace(problem));
  with_real("batch_norm_backward", problem.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    constexpr std::string_view op = "batch_norm_backward";
    const std::int64_t rows = problem.rows, channels = problem.channels;
    const T* g = elements<T>(op, gamma);
    const T* invstd = elements<T>(op, save_invstd);
    T* out = elements<T>(op, dx);
    T* out_residual = elements<T>(op, dresidual);
    T* out_gamma = elements<T>(op, dgamma);
    T* out_beta = elements<T>(op, dbeta);
    const std::int64_t grain = row_grain(channels);
    const int parts = parts_of(problem, threads_);
    const Layout<T> layout(workspace, parts, channels);
    const Upstream<T> in{elements<T>(op, x),
                         elements<T>(op, y),
                         elements<T>(op, dy),
                         elements<T>(op, save_mean),
                         layout.scale,
                         elements<T>(op, beta),
                         static_cast<T>(upper_bound(problem.activation))};
    const Mask kind = problem.activation == Activation::none ? Mask::none
                      : y                                    ? Mask::from_y
                                                             : Mask::from_x;
    for (std::int64_t c = 0; c < channels; ++c) layout.scale[c] = g[c] * invstd[c];
    with_mask(kind, [&](auto mask) {
      parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int part) {
        const std::int64_t at = part * channels;
        gradient_sums<mask>(in, channels, begin, end, layout.first + at, layout.second + at,
                            layout.block_first + at, layout.block_second + at);
      });
      const double count = static_cast<double>(rows);
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum = 0, product = 0;
        for (int part = 0; part < parts; ++part) {
          sum += layout.first[part * channels + c];
          product += layout.second[part * channels + c];
        }
        const double inverse = double{invstd[c]}, scale = double{g[c]} * inverse;
        layout.offset[c] = static_cast<T>(scale * sum / count);
        layout.slope[c] = static_cast<T>(scale * inverse * inverse * product / count);
        const bool accumulate = mode == GradMode::accumulate;
        const T gradient_gamma = static_cast<T>(product * inverse);
        out_gamma[c] = accumulate ? out_gamma[c] + gradient_gamma : gradient_gamma;
        out_beta[c] = accumulate ? out_beta[c] + static_cast<T>(sum) : static_cast<T>(sum);
      }
      with_flag(bool{dresidual}, [&](auto with_residual) {
        parallel_simd(threads_, rows, grain, [=](std::int64_t begin, std::int64_t end, int) {
          input_gradient<mask, with_residual>(in, channels, begin, end, layout.offset, layout.slope,
                                              out, out_residual);
        });
      });
    });
  });
}

}  // namespace nf::cpu
