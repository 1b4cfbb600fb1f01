#include <array>
#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {
namespace {

constexpr std::int64_t kRowsAtOnce = 512, kClassesAtOnce = 256;
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

// The target of a row, and what its gradient is multiplied with.
template <typename T>
struct Target {
  T scale, base, peak;

  Target(std::int64_t rows, std::int64_t classes, double smoothing, double upstream)
      : scale(static_cast<T>(upstream / static_cast<double>(rows))),
        base(static_cast<T>(smoothing / static_cast<double>(classes))),
        peak(static_cast<T>(1.0 - smoothing) + base) {}

  T gradient(T probability, bool at_label) const {
    return scale * (probability - (at_label ? peak : base));
  }
};

// A row's exponentials become its gradient. One function for both ways to get there, so that they
// round alike wherever the compiler fuses a product with a sum.
template <typename T>
[[gnu::noinline]] void to_gradient(const Target<T>& target, T inverse, std::int64_t classes,
                                   std::int64_t label, T* row) {
  for (std::int64_t c = 0; c < classes; ++c) row[c] = target.gradient(row[c] * inverse, c == label);
}

struct RowLoss {
  double loss;
  bool hit;
};

// A row's loss and, where `gradient` is given, its gradient: the exponentials of the sum serve it.
// It may be the row itself, of which nothing is read once they are written.
template <typename T>
RowLoss row_loss(const T* row, std::int64_t classes, std::int64_t label, double smoothing,
                 const Target<T>& target, T* gradient) {
  const RowMax<T> max = row_max(row, classes);
  double picked = (1.0 - smoothing) * (double{row[label]} - max.value);
  if (smoothing > 0.0) {
    double mean = 0;
    for (std::int64_t c = 0; c < classes; ++c) mean += double{row[c]} - max.value;
    picked += smoothing * mean / static_cast<double>(classes);
  }
  double sum = 0;
  if (gradient == nullptr) {
    sum = sum_of_exp(row, classes, max.value);
  } else {
    for (std::int64_t c = 0; c < classes; ++c) {
      gradient[c] = std::exp(row[c] - max.value);
      sum += double{gradient[c]};
    }
    to_gradient(target, static_cast<T>(1.0 / sum), classes, label, gradient);
  }
  const double log_sum = std::log(sum);
  // The largest of a row that holds a NaN is nobody's prediction.
  return {log_sum - picked, max.index == label && !std::isnan(log_sum)};
}

// `dx` (rows, classes) is null where no gradient is wanted.
template <typename T>
void mean_loss(int threads, const T* x, const std::int32_t* label, std::int64_t rows,
               std::int64_t classes, double smoothing, T* loss, std::int32_t* correct, T* dx) {
  check_labels(label, rows, classes);
  const Target<T> target(rows, classes, smoothing, 1.0);
  std::array<RowLoss, kRowsAtOnce> of_row;
  double sum = 0;
  std::int32_t hits = 0;
  // Summed row by row, so that the loss does not depend on the number of threads.
  for (std::int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, rows - first);
    parallel_for(threads, count, kExpGrain / classes + 1,
                 [&](std::int64_t begin, std::int64_t end, int) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     const std::int64_t at = (first + r) * classes;
                     of_row[static_cast<std::size_t>(r)] =
                         row_loss(x + at, classes, label[first + r], smoothing, target,
                                  dx == nullptr ? nullptr : dx + at);
                   }
                 });
    for (std::int64_t r = 0; r < count; ++r) {
      sum += of_row[static_cast<std::size_t>(r)].loss;
      hits += of_row[static_cast<std::size_t>(r)].hit ? 1 : 0;
    }
  }
  *loss = static_cast<T>(sum / static_cast<double>(rows));
  *correct = hits;
}

}  // namespace

void CpuBackend::softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                               View loss, View correct, Workspace workspace) {
  softmax_cross_entropy_forward_backward(logits, labels, smoothing, loss, correct,
                                         {nullptr, logits.dtype, logits.shape}, workspace);
}

void CpuBackend::softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels,
                                                        double smoothing, View loss, View correct,
                                                        View dlogits, Workspace) {
  constexpr std::string_view op = "softmax_cross_entropy";
  with_real(op, logits.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    mean_loss(threads_, logits.as<T>(), elements<std::int32_t>(op, labels), logits.shape[0],
              logits.shape[1], smoothing, elements<T>(op, loss),
              elements<std::int32_t>(op, correct), elements<T>(op, dlogits));
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
    const Target<T> target(rows, classes, smoothing, upstream);
    const bool accumulate = mode == GradMode::accumulate;
    parallel_for(threads_, rows, kExpGrain / classes + 1,
                 [=](std::int64_t begin, std::int64_t end, int) {
                   std::array<T, kClassesAtOnce> part;
                   for (std::int64_t r = begin; r < end; ++r) {
                     const T* row = x + r * classes;
                     T* out = dx + r * classes;
                     const T max = row_max(row, classes).value;
                     const T inverse = static_cast<T>(1.0 / sum_of_exp(row, classes, max));
                     for (std::int64_t first = 0; first < classes; first += kClassesAtOnce) {
                       const std::int64_t count = std::min(kClassesAtOnce, classes - first);
                       T* gradient = accumulate ? part.data() : out + first;
                       for (std::int64_t c = 0; c < count; ++c)
                         gradient[c] = std::exp(row[first + c] - max);
                       to_gradient(target, inverse, count, label[r] - first, gradient);
                       if (!accumulate) continue;
                       for (std::int64_t c = 0; c < count; ++c) out[first + c] += gradient[c];
                     }
                   }
                 });
  });
}

}  // namespace nf::cpu
