// The catalogue's families whose tensors are maps (n, h, w, c).
#include <algorithm>
#include <array>

#include "kernels/batch_norm.h"
#include "kernels/catalogue_entries.h"
#include "kernels/depthwise_conv2d.h"
#include "kernels/images.h"
#include "kernels/pool2d.h"

namespace nf::NF_TARGET {
namespace {

std::int64_t numel(const CatalogueSizes& sizes) { return sizes.n * sizes.h * sizes.w * sizes.c; }

std::string window_name(std::int64_t kernel, std::int64_t stride) {
  const std::string side = std::to_string(kernel);
  return side + "x" + side + "-s" + std::to_string(stride);
}

// --- Batch norm.

struct BatchNormUse {
  const char* variant;
  bool residual, activate, accumulate;
};

/// What is per channel.
struct BatchNormVectors {
  BatchNormVectors(Operands& o, std::int64_t channels)
      : gamma(o.ones<float>(channels)),
        beta(o.zeros<float>(channels)),
        mean(o.zeros<float>(channels)),
        var(o.ones<float>(channels)) {}
  float *gamma, *beta, *mean, *var;
};

template <typename T>
void add_batch_norm(EntryList& list, const CatalogueSizes& sizes) {
  const std::int64_t n = numel(sizes), c = sizes.c, rows = n / c;
  const std::int64_t t = n * static_cast<std::int64_t>(sizeof(T)), v = c * 4;
  list.start_family("batch_norm");
  constexpr std::array uses{BatchNormUse{"", false, false, false},
                            BatchNormUse{"relu", false, true, false},
                            BatchNormUse{"add-relu", true, true, false}};
  const auto options_of = [=](const BatchNormUse& use) {
    return BatchNormOptions{.rows = rows, .channels = c, .activate = use.activate};
  };
  for (const BatchNormUse& use : uses)
    list.add("batch_norm_forward_train", use.variant,
             {(use.residual ? 3 : 2) * t + 4 * v, t + 4 * v}, [=](Operands& o) {
               const BatchNormVectors vectors(o, c);
               const T *x = o.random<T>(n), *residual = use.residual ? o.ones<T>(n) : nullptr;
               T* y = o.zeros<T>(n);
               float *mean = o.zeros<float>(c), *invstd = o.ones<float>(c);
               void* workspace = o.workspace(batch_norm_workspace(rows, c));
               return [=](Stream stream) {
                 batch_norm_forward_train(stream, options_of(use), x, residual, vectors.gamma,
                                          vectors.beta, vectors.mean, vectors.var, y, mean, invstd,
                                          workspace);
               };
             });
  for (const BatchNormUse& use : uses)
    list.add("batch_norm_forward_eval", use.variant, {(use.residual ? 2 : 1) * t + 4 * v, t},
             [=](Operands& o) {
               const BatchNormVectors vectors(o, c);
               const T *x = o.random<T>(n), *residual = use.residual ? o.ones<T>(n) : nullptr;
               T* y = o.zeros<T>(n);
               return [=](Stream stream) {
                 batch_norm_forward_eval(stream, options_of(use), x, residual, vectors.gamma,
                                         vectors.beta, vectors.mean, vectors.var, y);
               };
             });
  constexpr std::array backward_uses{uses[0], uses[1], uses[2],
                                     BatchNormUse{"relu-accumulate", false, true, true}};
  for (const BatchNormUse& use : backward_uses)
    list.add("batch_norm_backward", use.variant,
             {(use.residual ? 6 : 4) * t + (use.accumulate ? 6 : 4) * v,
              (use.residual ? 2 : 1) * t + 2 * v},
             [=](Operands& o) {
               const BatchNormVectors vectors(o, c);
               const T *x = o.random<T>(n), *dy = o.ones<T>(n);
               const T* y = use.residual ? o.random<T>(n) : nullptr;
               T* dx = o.zeros<T>(n);
               T* dresidual = use.residual ? o.zeros<T>(n) : nullptr;
               float *dgamma = o.zeros<float>(c), *dbeta = o.zeros<float>(c);
               void* workspace = o.workspace(batch_norm_workspace(rows, c));
               return [=](Stream stream) {
                 batch_norm_backward(stream, options_of(use), x, y, dy, vectors.gamma, vectors.beta,
                                     vectors.mean, vectors.var, dx, dresidual, dgamma, dbeta,
                                     use.accumulate, workspace);
               };
             });
  // Of a filter as large as the map, in float whatever T.
  list.add("batch_norm_fold", "", {4 * n + 5 * v, 4 * n + v}, [=](Operands& o) {
    const BatchNormVectors vectors(o, c);
    const float *w = o.ones<float>(n), *bias = o.zeros<float>(c);
    float *folded_w = o.zeros<float>(n), *folded_bias = o.zeros<float>(c);
    return [=](Stream stream) {
      batch_norm_fold(stream, vectors.gamma, vectors.beta, vectors.mean, vectors.var, 1e-5, w, bias,
                      folded_w, folded_bias, c, rows);
    };
  });
}

// --- Pooling.

PoolWindows windows_of(const CatalogueSizes& sizes, std::int64_t side, std::int64_t stride,
                       std::int64_t padding) {
  const std::int64_t kernel = std::min({side, sizes.h + 2 * padding, sizes.w + 2 * padding});
  return {.n = sizes.n,
          .h = sizes.h,
          .w = sizes.w,
          .c = sizes.c,
          .out_h = (sizes.h + 2 * padding - kernel) / stride + 1,
          .out_w = (sizes.w + 2 * padding - kernel) / stride + 1,
          .kernel = kernel,
          .stride = stride,
          .padding = padding};
}

template <typename T>
void add_windows(EntryList& list, const std::string& name, const PoolWindows& windows) {
  const std::int64_t in = windows.n * windows.h * windows.w * windows.c;
  const std::int64_t out = windows.n * windows.out_h * windows.out_w * windows.c;
  constexpr std::int64_t kSize = sizeof(T);
  list.add("max_pool_forward", name, {in * kSize, out * kSize + out}, [=](Operands& o) {
    const T* x = o.random<T>(in);
    T* y = o.zeros<T>(out);
    auto* argmax = o.zeros<std::uint8_t>(out);
    return [=](Stream stream) { max_pool_forward(stream, windows, x, y, argmax); };
  });
  for (const bool accumulate : {false, true})
    list.add("max_pool_backward", name + (accumulate ? "-accumulate" : ""),
             {out * kSize + out + (accumulate ? in * kSize : 0), in * kSize}, [=](Operands& o) {
               const T* x = o.random<T>(in);
               T *y = o.zeros<T>(out), *dx = o.zeros<T>(in);
               auto* argmax = o.zeros<std::uint8_t>(out);
               max_pool_forward(o.stream(), windows, x, y, argmax);
               return [=](Stream stream) {
                 max_pool_backward(stream, windows, argmax, y, dx, accumulate);
               };
             });
  list.add("avg_pool_forward", name, {in * kSize, out * kSize}, [=](Operands& o) {
    const T* x = o.random<T>(in);
    T* y = o.zeros<T>(out);
    return [=](Stream stream) { avg_pool_forward(stream, windows, x, y); };
  });
  for (const bool accumulate : {false, true})
    list.add("avg_pool_backward", name + (accumulate ? "-accumulate" : ""),
             {out * kSize + (accumulate ? in * kSize : 0), in * kSize}, [=](Operands& o) {
               const T* dy = o.random<T>(out);
               T* dx = o.zeros<T>(in);
               return
                   [=](Stream stream) { avg_pool_backward(stream, windows, dy, dx, accumulate); };
             });
}

template <typename T>
void add_adaptive(EntryList& list, const CatalogueSizes& s, const char* name, std::int64_t out_h,
                  std::int64_t out_w) {
  const std::int64_t in = numel(s), out = s.n * out_h * out_w * s.c;
  constexpr std::int64_t kSize = sizeof(T);
  list.add("adaptive_avg_pool_forward", name, {in * kSize, out * kSize}, [=](Operands& o) {
    const T* x = o.random<T>(in);
    T* y = o.zeros<T>(out);
    return [=](Stream stream) {
      adaptive_avg_pool_forward(stream, s.n, s.h, s.w, s.c, out_h, out_w, x, y);
    };
  });
  list.add("adaptive_avg_pool_backward", name, {out * kSize, in * kSize}, [=](Operands& o) {
    const T* dy = o.random<T>(out);
    T* dx = o.zeros<T>(in);
    return [=](Stream stream) {
      adaptive_avg_pool_backward(stream, s.n, s.h, s.w, s.c, out_h, out_w, dy, dx, false);
    };
  });
}

template <typename T>
void add_pool2d(EntryList& list, const CatalogueSizes& sizes) {
  list.start_family("pool2d");
  add_windows<T>(list, window_name(2, 2), windows_of(sizes, 2, 2, 0));
  add_windows<T>(list, window_name(3, 2), windows_of(sizes, 3, 2, 1));
  add_adaptive<T>(list, sizes, "to-half", (sizes.h + 1) / 2, (sizes.w + 1) / 2);
  add_adaptive<T>(list, sizes, "to-1x1", 1, 1);
}

// --- Depthwise convolution.

template <typename T>
void add_depthwise(EntryList& list, const CatalogueSizes& sizes, std::int64_t kernel,
                   std::int64_t stride) {
  const DepthwiseProblem p{.n = sizes.n,
                           .h = sizes.h,
                           .w = sizes.w,
                           .c = sizes.c,
                           .kh = kernel,
                           .kw = kernel,
                           .stride = stride,
                           .padding = kernel / 2,
                           .out_h = (sizes.h - 1) / stride + 1,
                           .out_w = (sizes.w - 1) / stride + 1};
  const std::int64_t in = numel(sizes), out = p.n * p.out_h * p.out_w * p.c;
  const std::int64_t filters = p.c * kernel * kernel;
  constexpr std::int64_t kSize = sizeof(T);
  const std::string name = window_name(kernel, stride);
  list.add("depthwise_forward", name, {(in + filters + p.c) * kSize, out * kSize},
           [=](Operands& o) {
             const T *x = o.random<T>(in), *w = o.ones<T>(filters), *bias = o.zeros<T>(p.c);
             T* y = o.zeros<T>(out);
             return [=](Stream stream) { depthwise_forward(stream, p, x, w, bias, y); };
           });
  list.add("depthwise_backward_input", name, {(out + filters) * kSize, in * kSize},
           [=](Operands& o) {
             const T *dy = o.random<T>(out), *w = o.ones<T>(filters);
             T* dx = o.zeros<T>(in);
             return [=](Stream stream) { depthwise_backward_input(stream, p, dy, w, dx, false); };
           });
  list.add("depthwise_backward_weight", name, {(in + out) * kSize, filters * kSize},
           [=](Operands& o) {
             const T *x = o.random<T>(in), *dy = o.random<T>(out);
             T* dw = o.zeros<T>(filters);
             void* workspace = o.workspace(depthwise_backward_weight_workspace(p));
             return [=](Stream stream) {
               depthwise_backward_weight(stream, p, x, dy, dw, false, workspace);
             };
           });
}

template <typename T>
void add_depthwise_conv2d(EntryList& list, const CatalogueSizes& sizes) {
  list.start_family("depthwise_conv2d");
  for (const std::int64_t kernel : {3, 5})
    for (const std::int64_t stride : {1, 2}) add_depthwise<T>(list, sizes, kernel, stride);
}

// --- Images.

/// Colour images, as many as make about the tensor's size.
template <typename T>
void add_images(EntryList& list, const CatalogueSizes& sizes) {
  constexpr std::int64_t kColours = 3, kTable = kColours * 256;
  const std::int64_t image = sizes.h * sizes.w * kColours;
  const ImageBatch batch{.count = std::max<std::int64_t>(numel(sizes) / image, 1),
                         .height = sizes.h,
                         .width = sizes.w,
                         .channels = kColours,
                         .out_height = sizes.h,
                         .out_width = sizes.w,
                         .table_per_channel = true};
  list.start_family("images");
  for (const bool moved : {false, true}) {
    const std::int64_t shown = moved ? (sizes.h - 1) * (sizes.w - 1) * kColours : image;
    list.add("prepare_images", moved ? "shifted-flipped" : "",
             {batch.count * (shown + std::int64_t{sizeof(ImageWindow)}) + kTable * 4,
              batch.count * image * std::int64_t{sizeof(T)}},
             [=](Operands& o) {
               const auto* pixels = o.filled<std::uint8_t>(batch.count * image, 100);
               // Its three numbers alike: one row, one column, mirrored.
               static_assert(sizeof(ImageWindow) == 3 * sizeof(std::int32_t));
               const void* windows = o.filled<std::int32_t>(batch.count * 3, moved ? 1 : 0);
               const float* tables = o.ones<float>(kTable);
               T* out = o.zeros<T>(batch.count * image);
               return [=](Stream stream) {
                 prepare_images(stream, batch, pixels, static_cast<const ImageWindow*>(windows),
                                tables, out);
               };
             });
  }
}

}  // namespace

template <typename T>
void add_maps(EntryList& list, const CatalogueSizes& sizes) {
  add_batch_norm<T>(list, sizes);
  add_pool2d<T>(list, sizes);
  add_depthwise_conv2d<T>(list, sizes);
  add_images<T>(list, sizes);
}
template void add_maps<float>(EntryList&, const CatalogueSizes&);
template void add_maps<bf16>(EntryList&, const CatalogueSizes&);
template void add_maps<f16>(EntryList&, const CatalogueSizes&);

}  // namespace nf::NF_TARGET
