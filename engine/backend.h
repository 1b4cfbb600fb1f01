// What a device must be able to do: one virtual per primitive, on raw views. A backend computes;
// it never allocates device memory. Operators (engine/ops) check shapes and bring the memory.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/memory/pool.h"
#include "engine/shape.h"
#include "kernels/philox.h"
#include "kernels/update_scalars.h"

namespace nf {

/// Memory of a tensor as a primitive sees it: contiguous, layout as the shape says.
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  std::int64_t numel() const { return shape.numel(); }
  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

struct ConstView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  ConstView() = default;
  ConstView(const void* data, DType dtype, Shape shape) : data(data), dtype(dtype), shape(shape) {}
  ConstView(const View& view) : data(view.data), dtype(view.dtype), shape(view.shape) {}

  std::int64_t numel() const { return shape.numel(); }
  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

/// Scratch memory from the pool, as large as the primitive's *_workspace said.
struct Workspace {
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
};

/// Whether a gradient replaces what its buffer holds or is added to it.
enum class GradMode : std::uint8_t { overwrite, accumulate };

/// The element-wise function fused behind a batch norm.
enum class Activation : std::uint8_t { none, relu, relu6 };

/// Upper bound of the activation's output; what lies below 0 is cut for relu and relu6.
constexpr double upper_bound(Activation activation) {
  return activation == Activation::relu6 ? 6.0 : std::numeric_limits<double>::infinity();
}

/// What is left of a row of numbers.
enum class Reduction : std::uint8_t { sum, mean, min, max, sum_of_squares };

/// x (N, H, W, C), w (O, KH, KW, C / groups), y (N, out_h, out_w, O).
struct Conv2dProblem {
  DType dtype = DType::f32;
  std::int64_t n = 0, h = 0, w = 0, c = 0;
  std::int64_t o = 0, kh = 0, kw = 0;
  std::int64_t stride = 1, padding = 0, groups = 1;
  /// What follows in the forward pass: y = activation(convolution + bias + residual).
  Activation activation = Activation::none;
  bool residual = false;
  /// The forward pass finds its weights in this layout, 0 for the one above; see
  /// Backend::conv2d_weight_layout.
  std::int64_t weight_layout = 0;

  std::int64_t out_h() const { return (h + 2 * padding - kh) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * padding - kw) / stride + 1; }
  bool fused() const { return residual || activation != Activation::none; }
  /// The convolution and bias alone.
  Conv2dProblem plain() const {
    Conv2dProblem problem = *this;
    problem.activation = Activation::none;
    problem.residual = false;
    return problem;
  }
  bool depthwise() const { return groups == c && c == o && groups > 1; }
  bool operator==(const Conv2dProblem&) const = default;
};

enum class Pass : std::uint8_t { forward, backward_input, backward_weight };

/// x (N, I), w (O, I), y (N, O).
struct LinearProblem {
  DType dtype = DType::f32;
  std::int64_t n = 0, i = 0, o = 0;
  bool operator==(const LinearProblem&) const = default;
};

/// x and y (rows, channels): an NHWC tensor with N, H and W taken together.
struct BatchNormProblem {
  DType dtype = DType::f32;
  std::int64_t rows = 0, channels = 0;
  Activation activation = Activation::none;
  double eps = 1e-5;
  double momentum = 0.1;  ///< running = (1 - momentum) * running + momentum * batch
};

/// Square windows. Average pooling counts padding as zeros where count_include_pad is set.
struct Pool2dProblem {
  std::int64_t n = 0, h = 0, w = 0, c = 0;
  std::int64_t kernel = 1, stride = 1, padding = 0;
  bool count_include_pad = true;

  std::int64_t out_h() const { return (h + 2 * padding - kernel) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * padding - kernel) / stride + 1; }
};

struct SgdStep {
  double learning_rate = 0, momentum = 0, weight_decay = 0;
  bool nesterov = false;
  bool first = false;     ///< the momentum buffer holds nothing yet: it becomes the gradient
  UpdateSource source{};  ///< of a captured update
};

struct AdamWStep {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  std::int64_t step = 1;  ///< counted from 1, for the bias correction
  UpdateSource source{};  ///< of a captured update
};

/// One parameter of an optimizer's step; momentum is empty where the step has none.
struct SgdParameter {
  View w;
  ConstView grad;
  View momentum;
};

struct AdamWParameter {
  View w;
  ConstView grad;
  View m, v;
};

/// Calls that were captured: what they compute, on the addresses that they were made with.
class CapturedCalls {
 public:
  virtual ~CapturedCalls() = default;
  /// Makes them all, in their order, with what is in memory now. What computed on these addresses
  /// since the capture must have been done before; no memory that the calls use may be in use.
  virtual void replay() = 0;
};

/// Which random numbers: those of one key, in streams of their own.
struct RandomAddress {
  std::uint64_t key = 0;
  std::uint64_t stream = 0;
};

/// Where a prepared image lies in its stored one; outside of that all pixels are black, raw zeros.
struct ImageWindow {
  std::int32_t top = 0, left = 0;
  std::int32_t flip = 0;  ///< not 0: mirrored left to right
};

/// Throws Error unless dst (rows, width) can be columns first..first+width-1 of src (rows,
/// columns).
void check_columns(ConstView dst, ConstView src, std::int64_t first);

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;
  /// Granularity of the device's pool in bytes.
  virtual std::int64_t alignment() const = 0;
  /// Reserves addresses for a pool. Throws Error when the device can't.
  virtual std::unique_ptr<AddressRange> reserve(std::int64_t bytes) = 0;
  /// Largest pool that makes sense without a budget, in bytes.
  virtual std::int64_t memory_bytes() const = 0;
  /// Bytes that the device's context and its libraries hold outside of any pool, where the device
  /// has such things and tells; -1 where not.
  virtual std::int64_t context_bytes() const { return -1; }
  /// Host threads inside one operator.
  virtual int threads() const = 0;
  /// Waits until all that was asked for is done.
  virtual void synchronize() = 0;
  /// Whether calls can be captured, to be replayed together at less cost than one by one.
  virtual bool captures() const { return false; }
  /// From here on the calling thread's calls are not carried out but captured. None may copy to or
  /// from the host or wait. The pool may grant and take back memory meanwhile, and what is granted
  /// meanwhile must be taken back before the end. Throws Error where the device can't.
  virtual void begin_capture();
  /// Ends it. Throws Error, on one line, where a call could not be captured.
  virtual std::unique_ptr<CapturedCalls> end_capture();
  /// Ends it and forgets the calls: after an error.
  virtual void abandon_capture() noexcept {}
  /// Whether its operators compute in this type. With 16-bit storage they compute in f32, and
  /// statistics, batch norm's parameters and the loss are f32.
  virtual bool computes_in(DType dtype) const = 0;
  /// Whether stored pixels are better copied to the device and prepared there than prepared by the
  /// host's threads: a quarter of the bytes is copied.
  virtual bool prepares_images() const = 0;

  // Data movement. Sizes come from the view.
  virtual void copy_from_host(View dst, const void* src) = 0;
  virtual void copy_to_host(void* dst, ConstView src) = 0;
  virtual void copy(View dst, ConstView src) = 0;
  /// dst (rows, width) = columns first..first+width-1 of src (rows, columns). One copy a row unless
  /// the device has something better. Throws Error where they don't fit.
  virtual void copy_columns(View dst, ConstView src, std::int64_t first);
  virtual void fill(View dst, double value) = 0;
  /// y = x in another floating type, rounded to nearest even.
  virtual void cast(ConstView x, View y) = 0;

  // Input.
  /// out (N, OH, OW, C) f32: the windows of pixels (N, H, W, C) u8, each byte replaced by its value
  /// in tables (C, or 1 for all channels, by 256) f32. windows (N, 3) i32: ImageWindow's members.
  virtual void prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) = 0;

  // Element-wise.
  /// y += alpha * x
  virtual void axpy(double alpha, ConstView x, View y) = 0;
  /// y = alpha * x; y may be x.
  virtual void scale(double alpha, ConstView x, View y) = 0;
  /// out = a + b; out may be a or b.
  virtual void add(ConstView a, ConstView b, View out) = 0;
  /// y = min(max(x, 0), bound); y may be x.
  virtual void relu_forward(Activation activation, ConstView x, View y) = 0;
  /// dx = dy where 0 < y < bound, else 0; dx may be dy.
  virtual void relu_backward(Activation activation, ConstView y, ConstView dy, View dx,
                             GradMode mode) = 0;
  /// y = x * keep / (1 - p), element i kept when philox(key, i / 4)[i % 4] >= p. Its own backward.
  virtual void dropout(double p, PhiloxKey key, ConstView x, View y, GradMode mode) = 0;
  /// y[i] = low + u (high - low), fused in f32, u = uniform01 of word i % 4 of philox(key, i / 4,
  /// stream). All devices give the same bits.
  virtual void fill_uniform(RandomAddress at, double low, double high, View y) = 0;
  /// y[i] = mean + z stddev likewise, z number i % 4 of normal4(philox(key, i / 4, stream)).
  virtual void fill_normal(RandomAddress at, double mean, double stddev, View y) = 0;

  // Reductions, of x taken as (rows, columns) with as many rows as the result has elements.
  virtual std::int64_t reduce_workspace(std::int64_t rows, std::int64_t columns) const = 0;
  /// y (rows), f32 for x of 16 bits. NaN propagates through min and max.
  virtual void reduce(Reduction reduction, ConstView x, View y, Workspace workspace) = 0;
  /// dx (rows, columns) = factor * dy (rows) in each column: the gradient of a sum or mean.
  virtual void spread_rows(double factor, ConstView dy, View dx, GradMode mode) = 0;
  /// flag (1) i32 becomes 0 where x holds an infinity or NaN, and stays what it was otherwise.
  virtual void all_finite(ConstView x, View flag) = 0;

  // Convolution. `bias` and `db` (O) may be empty; `residual` (of y's shape) is given where the
  // problem has one, and is not y. Where something follows the convolution there is a bias.
  virtual std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass,
                                        GradMode mode) const = 0;
  virtual void conv2d_forward(const Conv2dProblem& problem, ConstView x, ConstView w,
                              ConstView bias, ConstView residual, View y, Workspace workspace) = 0;
  /// The layout that the forward pass of this problem reads weights in with the least work: a
  /// number of this backend's own, 0 where the plain one is as good. Weights that don't change are
  /// laid out once and then come with problem.weight_layout set to it.
  virtual std::int64_t conv2d_weight_layout(const Conv2dProblem&) const { return 0; }
  /// In how many equal ranges of output channels, each a problem of its own, the gradient of the
  /// filters is best computed: only one of them, and its workspace, need be there at a time.
  virtual std::int64_t conv2d_weight_parts(const Conv2dProblem&) const { return 1; }
  /// Bytes of the problem's weights in `layout`, padding included.
  virtual std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem, std::int64_t layout) const;
  virtual std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem,
                                                std::int64_t layout) const;
  /// out = w, from problem.weight_layout to `layout`. The default throws Error, as for what no
  /// layout of this backend leads to.
  virtual void conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout,
                                      ConstView w, View out, Workspace workspace);
  virtual void conv2d_backward_input(const Conv2dProblem& problem, ConstView dy, ConstView w,
                                     View dx, GradMode mode, Workspace workspace) = 0;
  virtual void conv2d_backward_weight(const Conv2dProblem& problem, ConstView x, ConstView dy,
                                      View dw, GradMode mode, Workspace workspace) = 0;
  virtual std::int64_t bias_backward_workspace(std::int64_t rows, std::int64_t channels) const = 0;
  /// db (C) from dy (…, C): sums over all but the last dimension.
  virtual void bias_backward(ConstView dy, View db, GradMode mode, Workspace workspace) = 0;

  // Linear. y = x w^T + bias.
  virtual std::int64_t linear_workspace(const LinearProblem& problem, Pass pass,
                                        GradMode mode) const = 0;
  virtual void linear_forward(const LinearProblem& problem, ConstView x, ConstView w,
                              ConstView bias, View y, Workspace workspace) = 0;
  virtual void linear_backward_input(const LinearProblem& problem, ConstView dy, ConstView w,
                                     View dx, GradMode mode, Workspace workspace) = 0;
  virtual void linear_backward_weight(const LinearProblem& problem, ConstView x, ConstView dy,
                                      View dw, GradMode mode, Workspace workspace) = 0;

  // Batch norm over (rows, channels), then + residual where given, then the activation.
  virtual std::int64_t batch_norm_workspace(const BatchNormProblem& problem) const = 0;
  /// Batch statistics; writes mean and 1/sqrt(var + eps) of the batch for the backward and updates
  /// the running statistics (the running variance with the unbiased one). A single row has no
  /// variance to tell of: the running statistics then stay as they are.
  virtual void batch_norm_forward_train(const BatchNormProblem& problem, ConstView x,
                                        ConstView residual, ConstView gamma, ConstView beta,
                                        View running_mean, View running_var, View y, View save_mean,
                                        View save_invstd, Workspace workspace) = 0;
  /// Running statistics; y may be x.
  virtual void batch_norm_forward_eval(const BatchNormProblem& problem, ConstView x,
                                       ConstView residual, ConstView gamma, ConstView beta,
                                       ConstView running_mean, ConstView running_var, View y) = 0;
  /// Gradient of batch_norm_forward_train. `y` is its output, needed where there was a residual and
  /// an activation, else empty (the activation's mask then follows from x). `dresidual` is empty
  /// without a residual; it is always overwritten. dx may be dy, and so may dresidual where dx is
  /// not. dgamma and dbeta (channels) follow `mode`; dx is overwritten.
  virtual void batch_norm_backward(const BatchNormProblem& problem, ConstView x, ConstView y,
                                   ConstView dy, ConstView gamma, ConstView beta,
                                   ConstView save_mean, ConstView save_invstd, View dx,
                                   View dresidual, View dgamma, View dbeta, GradMode mode,
                                   Workspace workspace) = 0;

  /// Folds a batch norm of running statistics into the convolution before it: with scale =
  /// gamma / sqrt(var + eps), folded_w (O, …) = w * scale and folded_bias (O) =
  /// (bias - mean) * scale + beta, `bias` empty for zeros. folded_w may be w, folded_bias may be
  /// bias or beta. All are of one type, f32 or f64.
  virtual void batch_norm_fold(double eps, ConstView gamma, ConstView beta, ConstView running_mean,
                               ConstView running_var, ConstView w, ConstView bias, View folded_w,
                               View folded_bias) = 0;

  // Pooling. `argmax` (shape of y; u8 where the window has at most 256 cells, else i32) is the
  // index of the maximum in its window, row by row; ties go to the first; NaN wins.
  virtual void max_pool_forward(const Pool2dProblem& problem, ConstView x, View y,
                                View argmax /* may be empty */) = 0;
  virtual void max_pool_backward(const Pool2dProblem& problem, ConstView argmax, ConstView dy,
                                 View dx, GradMode mode) = 0;
  virtual void avg_pool_forward(const Pool2dProblem& problem, ConstView x, View y) = 0;
  virtual void avg_pool_backward(const Pool2dProblem& problem, ConstView dy, View dx,
                                 GradMode mode) = 0;
  /// Cell i of `out` averages rows floor(i * in / out) to ceil((i + 1) * in / out) - 1.
  virtual void adaptive_avg_pool_forward(ConstView x, View y) = 0;
  virtual void adaptive_avg_pool_backward(ConstView dy, View dx, GradMode mode) = 0;

  // Loss. logits (N, C), labels (N) i32 in 0..C-1.
  virtual std::int64_t softmax_cross_entropy_workspace(std::int64_t rows,
                                                       std::int64_t classes) const = 0;
  /// loss (1): mean over N of the cross-entropy against (1 - smoothing) * onehot + smoothing / C.
  /// correct (1) i32: rows whose first largest logit is the label's, none whose softmax is NaN.
  /// Throws Error for a label out of range; a device that the host runs ahead of gives a NaN loss.
  virtual void softmax_cross_entropy_forward(ConstView logits, ConstView labels, double smoothing,
                                             View loss, View correct, Workspace workspace) = 0;
  /// dlogits = dloss * (softmax - target) / N; dlogits may be logits' own memory in overwrite mode.
  virtual void softmax_cross_entropy_backward(ConstView logits, ConstView labels, double smoothing,
                                              ConstView dloss, View dlogits, GradMode mode) = 0;
  /// What softmax_cross_entropy_forward gives and, in the same pass over the logits, its gradient
  /// for dloss = 1: dlogits = (softmax - target) / N, which may be logits' own memory.
  virtual void softmax_cross_entropy_forward_backward(ConstView logits, ConstView labels,
                                                      double smoothing, View loss, View correct,
                                                      View dlogits, Workspace workspace) = 0;

  // Optimizers, in PyTorch's formulas, over any number of parameters.
  /// g = grad + weight_decay * w; m = momentum * m + g (m = g on the first step);
  /// w -= lr * (nesterov ? g + momentum * m : m). Without momentum `m` is empty and w -= lr * g.
  virtual void sgd(const SgdStep& step, std::span<const SgdParameter> parameters) = 0;
  /// Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
  virtual void adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) = 0;
  /// all_finite over all gradients together.
  virtual void gradients_finite(std::span<const ConstView> gradients, View flag) = 0;
  virtual std::int64_t gradient_norm_workspace(std::span<const View> gradients) const = 0;
  /// norm (1): the L2 norm over all gradients together, summed in f64.
  virtual void gradient_norm(std::span<const View> gradients, View norm, Workspace workspace) = 0;
  /// All gradients *= min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does.
  virtual void clip_gradients(std::span<const View> gradients, double max_norm, ConstView norm) = 0;
};

/// Threads inside one CPU operator: its partial results fit on the stack.
inline constexpr int kMaxThreads = 128;

/// Makes the CPU backend with `threads` threads inside operators (0: one per core that the process
/// may use). Where oneDNN was built in, `onednn` false asks for the Eigen path.
struct CpuOptions {
  int threads = 0;
  bool onednn = true;
};
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {});
/// Runs the GPU's kernels on the emulator, in host memory; convolutions and matrix products, which
/// are library calls on a GPU, are the CPU backend's. Throws Error where this build has no
/// emulator.
std::unique_ptr<Backend> make_simt_backend(const CpuOptions& options = {});
/// A CUDA device.
struct CudaOptions {
  int index = 0;
  /// Lets tensor cores round f32 operands of convolutions and products to TF32 (10 bits).
  bool tf32 = false;
  /// Bytes of workspace up to which convolutions and products take the fastest algorithm; only
  /// where all that a library has need more, the one that needs least.
  std::int64_t workspace_cap = std::int64_t{64} << 20;
};
/// Convolutions are by deterministic algorithms where cuDNN has one within the cap, else by others,
/// whose sums differ in the last bits from run to run.
/// Throws Error, in one line, where no such device answers or this build has no CUDA.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options = {});
/// Computes nothing over addresses that don't exist; sizes are those of `target`.
std::unique_ptr<Backend> make_meta_backend(std::unique_ptr<Backend> target);

}  // namespace nf
