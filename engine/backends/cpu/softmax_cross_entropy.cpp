#include <array>
#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kRowsAtOnce = 512;
constexpr std::int64_t kExpGrain = 2048;  // exponentials that are worth a thread

template <typename T>
struct RowMax {
  T value;
  std::int64_t index;  // the first of equals
};

template <typename T>
RowMax<T> row_max(const T* row, std::int64_t classes) {
  RowMax<T> best{row[0], 0};
  for (std::int64_t c = 1; c < classes; ++c)
    if (row[c] > best.value) best = {row[c], c};
  return best;
}

template <typename T>
double sum_of_exp(const T* row, std::int64_t classes, T max) {
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += double{std::exp(row[c] - max)};
  return sum;
}

// Before anything is computed, since nothing may be thrown out of a parallel loop.
void check_labels(const std::int32_t* label, std::int64_t rows, std::int64_t classes) {
  for (std::int64_t r = 0; r < rows; ++r)
    NF_CHECK(label[r] >= 0 && label[r] < classes,
             "softmax_cross_entropy: label {} must be in [0, {}), got {}", r, classes, label[r]);
}

}  // namespace

void CpuBackend::softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                               View loss, View correct, Workspace) {
  with_real("softmax_cross_entropy", logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const std::int64_t rows = logits.shape[0], classes = logits.shape[1];
    const T* x = logits.as<T>();
    const auto* label = elements<std::int32_t>("softmax_cross_entropy", labels);
    check_labels(label, rows, classes);
    std::array<double, kRowsAtOnce> row_loss;
    std::array<bool, kRowsAtOnce> row_hit;
    double sum = 0;
    std::int32_t hits = 0;
    // Summed row by row, so that the loss does not depend on the number of threads.
    for (std::int64_t first = 0; first < rows; first += kRowsAtOnce) {
      const std::int64_t count = std::min(kRowsAtOnce, rows - first);
      parallel_for(threads_, count, kExpGrain / classes + 1,
                   [&](std::int64_t begin, std::int64_t end, int) {
                     for (std::int64_t r = begin; r < end; ++r) {
                       const T* row = x + (first + r) * classes;
                       const RowMax<T> max = row_max(row, classes);
                       const double log_sum = std::log(sum_of_exp(row, classes, max.value));
                       const std::int64_t target = label[first + r];
                       double picked = (1.0 - smoothing) * (double{row[target]} - max.value);
                       if (smoothing > 0.0) {
                         double mean = 0;
                         for (std::int64_t c = 0; c < classes; ++c)
                           mean += double{row[c]} - max.value;
                         picked += smoothing * mean / static_cast<double>(classes);
                       }
                       const auto slot = static_cast<std::size_t>(r);
                       row_loss[slot] = log_sum - picked;
                       // The largest of a row that holds a NaN is nobody's prediction.
                       row_hit[slot] = max.index == target && !std::isnan(log_sum);
                     }
                   });
      for (std::int64_t r = 0; r < count; ++r) {
        sum += row_loss[static_cast<std::size_t>(r)];
        hits += row_hit[static_cast<std::size_t>(r)] ? 1 : 0;
      }
    }
    *elements<T>("softmax_cross_entropy", loss) = static_cast<T>(sum / static_cast<double>(rows));
    *elements<std::int32_t>("softmax_cross_entropy", correct) = hits;
  });
}

void CpuBackend::softmax_cross_entropy_backward(ConstView logits, ConstView labels,
                                                double smoothing, ConstView dloss, View dlogits,
                                                GradMode mode) {
  with_real("softmax_cross_entropy_backward", logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    const std::int64_t rows = logits.shape[0], classes = logits.shape[1];
    const T* x = logits.as<T>();
    const auto* label = elements<std::int32_t>("softmax_cross_entropy_backward", labels);
    T* dx = elements<T>("softmax_cross_entropy_backward", dlogits);
    const double upstream = double{*elements<T>("softmax_cross_entropy_backward", dloss)};
    const T scale = static_cast<T>(upstream / static_cast<double>(rows));
    const T base = static_cast<T>(smoothing / static_cast<double>(classes));
    const T peak = static_cast<T>(1.0 - smoothing) + base;
    with_flag(mode == GradMode::accumulate, [&](auto accumulate) {
      parallel_for(threads_, rows, kExpGrain / classes + 1,
                   [=](std::int64_t begin, std::int64_t end, int) {
                     for (std::int64_t r = begin; r < end; ++r) {
                       const T* row = x + r * classes;
                       T* out = dx + r * classes;
                       const T max = row_max(row, classes).value;
                       const T inverse = static_cast<T>(1.0 / sum_of_exp(row, classes, max));
                       for (std::int64_t c = 0; c < classes; ++c) {
                         const T target = c == label[r] ? peak : base;
                         const T g = scale * (std::exp(row[c] - max) * inverse - target);
                         out[c] = accumulate ? out[c] + g : g;
                       }
                     }
                   });
    });
  });
}

}  // namespace nf::cpu
