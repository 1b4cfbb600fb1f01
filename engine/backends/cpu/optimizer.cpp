// Updates of the parameters, each in one pass over memory.
#include <array>
#include <cmath>

#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"
#include "engine/backends/cpu/typed.h"

namespace nf::cpu {

namespace {

void sgd_one(int threads, const SgdStep& step, View w, ConstView grad, View m) {
  NF_CHECK(m || step.momentum == 0.0, "sgd: momentum {} needs a buffer", step.momentum);
  with_real("sgd", w.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    T* weight = w.as<T>();
    const T* gradient = elements<T>("sgd", grad);
    T* velocity = elements<T>("sgd", m);
    const T rate = static_cast<T>(step.learning_rate);
    const T decay = static_cast<T>(step.weight_decay);
    const T momentum = static_cast<T>(step.momentum);
    if (!m) {
      parallel_simd(threads, w.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i)
          weight[i] -= rate * (gradient[i] + decay * weight[i]);
      });
      return;
    }
    with_flag(step.first, [&](auto first) {
      with_flag(step.nesterov, [&](auto nesterov) {
        parallel_simd(threads, w.numel(), kGrain, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
          for (std::int64_t i = begin; i < end; ++i) {
            const T g = gradient[i] + decay * weight[i];
            const T v = first ? g : momentum * velocity[i] + g;
            velocity[i] = v;
            weight[i] -= rate * (nesterov ? g + momentum * v : v);
          }
        });
      });
    });
  });
}

void adamw_one(int threads, const AdamWStep& step, View w, ConstView grad, View m, View v) {
  NF_CHECK(step.step >= 1, "adamw: steps are counted from 1, got {}", step.step);
  with_real("adamw", w.dtype, [&](auto scalar) {
    using T = decltype(scalar);
    T* weight = w.as<T>();
    const T* gradient = elements<T>("adamw", grad);
    T* first = elements<T>("adamw", m);
    T* second = elements<T>("adamw", v);
    const double steps = static_cast<double>(step.step);
    const double correction1 = 1.0 - std::pow(step.beta1, steps);
    const double correction2 = 1.0 - std::pow(step.beta2, steps);
    const T beta1 = static_cast<T>(step.beta1), rest1 = static_cast<T>(1.0 - step.beta1);
    const T beta2 = static_cast<T>(step.beta2), rest2 = static_cast<T>(1.0 - step.beta2);
    const T keep = static_cast<T>(1.0 - step.learning_rate * step.weight_decay);
    const T rate = static_cast<T>(step.learning_rate / correction1);
    const T root = static_cast<T>(1.0 / std::sqrt(correction2));
    const T eps = static_cast<T>(step.eps);
    parallel_simd(threads, w.numel(), kGrain / 2, [=](std::int64_t begin, std::int64_t end, int) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = gradient[i];
        const T mean = beta1 * first[i] + rest1 * g;
        const T square = beta2 * second[i] + rest2 * g * g;
        first[i] = mean;
        second[i] = square;
        weight[i] = weight[i] * keep - rate * mean / (std::sqrt(square) * root + eps);
      }
    });
  });
}

void check_not_captured(std::string_view op, const UpdateSource& source) {
  NF_CHECK(source.scalars == nullptr && source.loss == nullptr && source.norm == nullptr,
           "{}: the CPU captures no calls, so an update must bring its numbers itself", op);
}

}  // namespace

void CpuBackend::sgd(const SgdStep& step, std::span<const SgdParameter> parameters) {
  check_not_captured("sgd", step.source);
  for (const SgdParameter& p : parameters) sgd_one(threads_, step, p.w, p.grad, p.momentum);
}

void CpuBackend::adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  check_not_captured("adamw", step.source);
  for (const AdamWParameter& p : parameters) adamw_one(threads_, step, p.w, p.grad, p.m, p.v);
}

void CpuBackend::gradient_norm(std::span<const View> gradients, View norm, Workspace) {
  double squares = 0;
  for (const View& gradient : gradients)
    with_real("gradient_norm", gradient.dtype, [&](auto scalar) {
      const auto* values = gradient.as<decltype(scalar)>();
      std::array<double, kMaxThreads> partial{};
      double* sums = partial.data();
      const std::int64_t count = gradient.numel();
      parallel_simd(threads_, count, kGrain, [=](std::int64_t begin, std::int64_t end, int chunk) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = begin; i < end; ++i) {
          const double value = values[i];
          sum += value * value;
        }
        sums[chunk] = sum;
      });
      for (int chunk = 0; chunk < chunks(threads_, count, kGrain); ++chunk) squares += sums[chunk];
    });
  with_real("gradient_norm", norm.dtype, [&](auto scalar) {
    *norm.as<decltype(scalar)>() = static_cast<decltype(scalar)>(std::sqrt(squares));
  });
}

void CpuBackend::clip_gradients(std::span<const View> gradients, double max_norm, ConstView norm) {
  double length = 0;
  with_real("clip_gradients", norm.dtype,
            [&](auto scalar) { length = double{*norm.as<decltype(scalar)>()}; });
  const double factor = max_norm / (length + 1e-6);
  if (factor >= 1) return;
  for (const View& gradient : gradients)
    with_real("clip_gradients", gradient.dtype, [&](auto scalar) {
      using T = decltype(scalar);
      T* values = gradient.as<T>();
      const T scale = static_cast<T>(factor);
      parallel_simd(threads_, gradient.numel(), kGrain,
                    [=](std::int64_t begin, std::int64_t end, int) {
                      for (std::int64_t i = begin; i < end; ++i) values[i] *= scale;
                    });
    });
}

}  // namespace nf::cpu
