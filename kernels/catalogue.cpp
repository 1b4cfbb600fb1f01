#include "kernels/catalogue.h"

#include <algorithm>

#include "kernels/catalogue_entries.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/softmax_cross_entropy.h"

namespace nf::NF_TARGET {
namespace {

/// The numbers of elements that most entries are made from.
struct Counts {
  explicit Counts(const CatalogueSizes& sizes)
      : all(sizes.n * sizes.h * sizes.w * sizes.c),
        rows(sizes.n * sizes.h * sizes.w),
        channels(sizes.c) {}
  std::int64_t all, rows, channels;
};

template <typename T>
constexpr std::int64_t bytes(std::int64_t count) {
  return count * static_cast<std::int64_t>(sizeof(T));
}

template <typename T>
const char* name_of() {
  return sizeof(T) == 4 ? "f32" : std::is_same_v<T, bf16> ? "bf16" : "f16";
}

template <typename From, typename To>
void add_cast(EntryList& list, std::int64_t n) {
  if constexpr (!std::is_same_v<From, To>)
    list.add("cast", std::string("to-") + name_of<To>(), {bytes<From>(n), bytes<To>(n)},
             [=](Operands& o) {
               const From* x = o.zeros<From>(n);
               To* y = o.zeros<To>(n);
               return [=](Stream stream) { cast(stream, x, y, n); };
             });
}

template <typename T>
void add_elementwise(EntryList& list, const Counts& counts) {
  const std::int64_t n = counts.all, t = bytes<T>(n);
  list.start_family("elementwise");
  list.add("fill", "", {0, t}, [=](Operands& o) {
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { fill(stream, y, n, 0.5); };
  });
  list.add("copy", "", {t, t}, [=](Operands& o) {
    const T* x = o.zeros<T>(n);
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { copy(stream, x, y, t); };
  });
  add_cast<T, float>(list, n);
  add_cast<T, bf16>(list, n);
  add_cast<T, f16>(list, n);
  list.add("add", "", {2 * t, t}, [=](Operands& o) {
    const T *a = o.zeros<T>(n), *b = o.ones<T>(n);
    T* out = o.zeros<T>(n);
    return [=](Stream stream) { add(stream, a, b, out, n); };
  });
  list.add("axpy", "", {2 * t, t}, [=](Operands& o) {
    const T* x = o.ones<T>(n);
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { axpy(stream, 0.5F, x, y, n); };
  });
  list.add("scale", "", {t, t}, [=](Operands& o) {
    const T* x = o.ones<T>(n);
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { scale(stream, -1.0F, x, y, n); };
  });
  list.add("relu_forward", "", {t, t}, [=](Operands& o) {
    const T* x = o.random<T>(n);
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { relu_forward(stream, x, y, n, 6.0F); };
  });
  for (const bool accumulate : {false, true})
    list.add("relu_backward", accumulate ? "accumulate" : "", {(accumulate ? 3 : 2) * t, t},
             [=](Operands& o) {
               const T *y = o.random<T>(n), *dy = o.ones<T>(n);
               T* dx = o.zeros<T>(n);
               return [=](Stream stream) { relu_backward(stream, y, dy, dx, n, 6.0F, accumulate); };
             });
  list.add("add_bias", "", {t + bytes<T>(counts.channels), t}, [=](Operands& o) {
    const T* bias = o.ones<T>(counts.channels);
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { add_bias(stream, bias, y, counts.rows, counts.channels); };
  });
  for (const bool accumulate : {false, true})
    list.add("spread_rows", accumulate ? "accumulate" : "",
             {bytes<float>(counts.rows) + (accumulate ? t : 0), t}, [=](Operands& o) {
               const float* x = o.ones<float>(counts.rows);
               T* y = o.zeros<T>(n);
               return [=](Stream stream) {
                 spread_rows(stream, 0.5F, x, y, counts.rows, counts.channels, accumulate);
               };
             });
}

template <typename T>
void add_reduce(EntryList& list, const CatalogueSizes& sizes, const Counts& counts) {
  const std::int64_t n = counts.all, t = bytes<T>(n);
  list.start_family("reduce");
  const auto add_rows = [&](const char* variant, std::int64_t rows) {
    list.add("reduce_rows", variant, {t, bytes<float>(rows)}, [=](Operands& o) {
      const T* x = o.random<T>(n);
      float* y = o.zeros<float>(rows);
      return [=](Stream stream) { reduce_rows(stream, Reduction::mean, x, rows, n / rows, y); };
    });
  };
  add_rows("pixels", counts.rows);
  add_rows("images", sizes.n);
  list.add("reduce_all", "", {t, bytes<float>(1)}, [=](Operands& o) {
    const T* x = o.random<T>(n);
    float* y = o.zeros<float>(1);
    void* workspace = o.workspace(reduce_all_workspace(n));
    return [=](Stream stream) { reduce_all(stream, Reduction::sum, x, n, y, workspace); };
  });
  for (const bool accumulate : {false, true}) {
    const std::int64_t sums = bytes<T>(counts.channels);
    list.add("column_sums", accumulate ? "accumulate" : "", {t + (accumulate ? sums : 0), sums},
             [=](Operands& o) {
               const T* x = o.random<T>(n);
               T* y = o.zeros<T>(counts.channels);
               void* workspace = o.workspace(column_sums_workspace(counts.rows, counts.channels));
               return [=](Stream stream) {
                 column_sums(stream, x, counts.rows, counts.channels, y, accumulate, workspace);
               };
             });
  }
  list.add("all_finite", "", {t, 0}, [=](Operands& o) {
    const T* x = o.random<T>(n);
    auto* flag = o.ones<std::int32_t>(1);
    return [=](Stream stream) { all_finite(stream, x, n, flag); };
  });
}

template <typename T>
void add_random(EntryList& list, std::int64_t n) {
  const std::int64_t t = bytes<T>(n);
  list.start_family("random");
  for (const bool accumulate : {false, true})
    list.add("dropout", accumulate ? "accumulate" : "", {(accumulate ? 2 : 1) * t, t},
             [=](Operands& o) {
               const T* x = o.random<T>(n);
               T* y = o.zeros<T>(n);
               return [=](Stream stream) { dropout(stream, 0.5, 1, x, y, n, accumulate); };
             });
  list.add("fill_uniform", "", {0, t}, [=](Operands& o) {
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { fill_uniform(stream, 1, 0, y, n, -1.0F, 1.0F); };
  });
  list.add("fill_normal", "", {0, t}, [=](Operands& o) {
    T* y = o.zeros<T>(n);
    return [=](Stream stream) { fill_normal(stream, 1, 0, y, n, 0.0F, 1.0F); };
  });
}

template <typename T>
void add_losses(EntryList& list, const char* name, std::int64_t rows, std::int64_t classes,
                double smoothing) {
  const std::int64_t n = rows * classes, t = bytes<T>(n), labels_bytes = bytes<std::int32_t>(rows);
  const std::int64_t results = bytes<float>(1) + bytes<std::int32_t>(1);
  const std::int64_t scratch = softmax_cross_entropy_workspace(rows, classes);
  list.add("softmax_cross_entropy_forward", name, {t + labels_bytes, results}, [=](Operands& o) {
    const T* logits = o.random<T>(n);
    const auto* labels = o.zeros<std::int32_t>(rows);
    float* loss = o.zeros<float>(1);
    auto* correct = o.zeros<std::int32_t>(1);
    void* workspace = o.workspace(scratch);
    return [=](Stream stream) {
      softmax_cross_entropy_forward(stream, logits, labels, rows, classes, smoothing, loss, correct,
                                    workspace);
    };
  });
  for (const bool accumulate : {false, true})
    list.add("softmax_cross_entropy_backward",
             std::string(name) + (accumulate ? "-accumulate" : ""),
             {(accumulate ? 2 : 1) * t + labels_bytes + bytes<float>(1), t}, [=](Operands& o) {
               const T* logits = o.random<T>(n);
               const auto* labels = o.zeros<std::int32_t>(rows);
               const float* dloss = o.ones<float>(1);
               T* dlogits = o.zeros<T>(n);
               return [=](Stream stream) {
                 softmax_cross_entropy_backward(stream, logits, labels, rows, classes, smoothing,
                                                dloss, dlogits, accumulate);
               };
             });
  list.add("softmax_cross_entropy_forward_backward", name, {t + labels_bytes, t + results},
           [=](Operands& o) {
             const T* logits = o.random<T>(n);
             const auto* labels = o.zeros<std::int32_t>(rows);
             float* loss = o.zeros<float>(1);
             auto* correct = o.zeros<std::int32_t>(1);
             T* dlogits = o.zeros<T>(n);
             void* workspace = o.workspace(scratch);
             return [=](Stream stream) {
               softmax_cross_entropy_forward_backward(stream, logits, labels, rows, classes,
                                                      smoothing, loss, correct, dlogits, workspace);
             };
           });
}

template <typename T>
void add_softmax_cross_entropy(EntryList& list, const Counts& counts) {
  list.start_family("softmax_cross_entropy");
  add_losses<T>(list, "channels", counts.rows, counts.channels, 0.0);
  add_losses<T>(list, "1000-smoothed", std::max<std::int64_t>(counts.all / 1000, 1), 1000, 0.1);
}

/// A net's parameters: `count` elements in ever smaller tensors.
std::vector<std::int64_t> parameter_sizes(std::int64_t count) {
  std::vector<std::int64_t> sizes;
  for (; count > 4096; count -= sizes.back()) sizes.push_back(count / 2);
  sizes.push_back(count);
  return sizes;
}

/// Launches `step` on tensors that `make` allocates, one for each parameter.
template <typename Make, typename Step>
auto over_parameters(const std::vector<std::int64_t>& sizes, const Make& make, const Step& step) {
  return [=](Operands& o) {
    std::vector<decltype(make(o, 0))> tensors;
    for (const std::int64_t size : sizes) tensors.push_back(make(o, size));
    return [=](Stream stream) {
      step(stream, tensors.data(), static_cast<std::int64_t>(tensors.size()));
    };
  };
}

void add_optimizer(EntryList& list, std::int64_t n) {
  const std::int64_t t = bytes<float>(n);
  const std::vector<std::int64_t> sizes = parameter_sizes(n);
  list.start_family("optimizer");
  const auto add_sgd = [&](const char* variant, Traffic traffic, const SgdOptions& options) {
    const auto make = [=](Operands& o, std::int64_t size) {
      return SgdTensor{.w = o.ones<float>(size),
                       .grad = o.random<float>(size),
                       .momentum = options.momentum > 0 ? o.zeros<float>(size) : nullptr,
                       .size = size};
    };
    list.add("sgd", variant, traffic,
             over_parameters(sizes, make,
                             [=](Stream stream, const SgdTensor* tensors, std::int64_t count) {
                               sgd(stream, tensors, count, options);
                             }));
  };
  add_sgd("", {2 * t, t}, {.learning_rate = 1e-3, .weight_decay = 1e-4});
  add_sgd("momentum", {3 * t, 2 * t},
          {.learning_rate = 1e-3, .momentum = 0.9, .weight_decay = 1e-4, .nesterov = true});
  list.add("adamw", "", {4 * t, 3 * t},
           over_parameters(
               sizes,
               [](Operands& o, std::int64_t size) {
                 return AdamWTensor{.w = o.ones<float>(size),
                                    .grad = o.random<float>(size),
                                    .m = o.zeros<float>(size),
                                    .v = o.zeros<float>(size),
                                    .size = size};
               },
               [](Stream stream, const AdamWTensor* tensors, std::int64_t count) {
                 adamw(stream, tensors, count, {.learning_rate = 1e-3, .weight_decay = 1e-2});
               }));
  const auto gradients = [=](Operands& o) {
    std::vector<GradientTensor> tensors;
    for (const std::int64_t size : sizes) tensors.push_back({o.random<float>(size), size});
    return tensors;
  };
  list.add("gradient_norm", "", {t, bytes<float>(1)}, [=](Operands& o) {
    const std::vector<GradientTensor> tensors = gradients(o);
    const auto count = static_cast<std::int64_t>(tensors.size());
    float* norm = o.zeros<float>(1);
    void* workspace = o.workspace(gradient_norm_workspace(tensors.data(), count));
    return [=](Stream stream) { gradient_norm(stream, tensors.data(), count, norm, workspace); };
  });
  // A factor of 1 leaves the gradients alone, so it is another one.
  list.add("clip_gradients", "", {t + bytes<float>(1), t}, [=](Operands& o) {
    const std::vector<GradientTensor> tensors = gradients(o);
    const auto count = static_cast<std::int64_t>(tensors.size());
    const float* norm = o.ones<float>(1);
    return [=](Stream stream) { clip_gradients(stream, tensors.data(), count, norm, 0.999F); };
  });
  list.add("gradients_finite", "", {t, 0}, [=](Operands& o) {
    const std::vector<GradientTensor> tensors = gradients(o);
    const auto count = static_cast<std::int64_t>(tensors.size());
    auto* flag = o.ones<std::int32_t>(1);
    return [=](Stream stream) { gradients_finite(stream, tensors.data(), count, flag); };
  });
}

template <typename T>
void add_all(EntryList& list, const CatalogueSizes& sizes) {
  const Counts counts(sizes);
  add_elementwise<T>(list, counts);
  add_reduce<T>(list, sizes, counts);
  add_softmax_cross_entropy<T>(list, counts);
  add_optimizer(list, counts.all);
  add_random<T>(list, counts.all);
  add_maps<T>(list, sizes);
}

}  // namespace

std::vector<CatalogueEntry> catalogue(const CatalogueSizes& sizes) {
  EntryList list;
  if (sizes.storage == StorageType::f32) add_all<float>(list, sizes);
  if (sizes.storage == StorageType::bf16) add_all<bf16>(list, sizes);
  if (sizes.storage == StorageType::f16) add_all<f16>(list, sizes);
  return list.take();
}

}  // namespace nf::NF_TARGET
