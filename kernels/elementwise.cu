#include "kernels/elementwise.cuh"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <type_traits>

namespace nf::NF_TARGET {
namespace {

using namespace elementwise;

template <typename T>
std::uintptr_t address(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

/// n elements of operands that are accessed `vector` elements at a time.
template <typename... Ts>
Parts make_parts(std::int64_t n, int vector, const Ts*... operands) {
  for (std::int64_t head = 0; head < std::min<std::int64_t>(vector, n); ++head) {
    const std::size_t v = static_cast<std::size_t>(vector);
    if (!((address(operands + head) % (v * sizeof(Ts)) == 0) && ...)) continue;
    const std::int64_t vectors = (n - head) / vector;
    return {head, vectors, n - vectors * vector};
  }
  return {n, 0, n};
}

Extent blocks_for(const Parts& parts) {
  return {(std::max(parts.vectors, parts.scalars) + kElementwiseChunk - 1) / kElementwiseChunk};
}

/// K is at most 3.
template <int K, typename From, typename To, typename Op>
void map(const char* name, Stream stream, Op op, Operands<From, K> in, To* out, std::int64_t n) {
  if (n == 0) return;
  const Parts parts = make_parts(n, kTogether<From, To>, out, in.x[0], in.x[K / 2], in.x[K - 1]);
  for (const From*& x : in.x) x += parts.head;
  launch(name, map_kernel<K, From, To, Op>, blocks_for(parts), {kElementwiseThreads}, 0, stream, op,
         in, out + parts.head, parts);
}

/// The bits of `value` as a T.
template <typename T>
auto bits_of(double value) {
  if constexpr (std::is_same_v<T, f16>)
    return float_to_f16(static_cast<float>(value));
  else if constexpr (std::is_same_v<T, bf16>)
    return float_to_bf16(static_cast<float>(value));
  else if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  else if constexpr (std::is_same_v<T, double>)
    return std::bit_cast<std::uint64_t>(value);
  else
    return static_cast<std::make_unsigned_t<T>>(static_cast<T>(value));
}

template <int width>
void copy_by(Stream stream, const std::uint8_t* x, std::uint8_t* y, std::int64_t bytes) {
  const Parts parts = make_parts(bytes, width, x, y);
  launch("copy", copy_kernel<width>, blocks_for(parts), {kElementwiseThreads}, 0, stream,
         x + parts.head, y + parts.head, parts);
}

}  // namespace

template <typename T>
void fill(Stream stream, T* y, std::int64_t n, double value) {
  if (n == 0) return;
  auto bits = bits_of<T>(value);
  using Word = decltype(bits);
  const Parts parts = make_parts(n, kVec<T>, y);
  launch("fill", fill_kernel<Word>, blocks_for(parts), {kElementwiseThreads}, 0, stream, bits,
         reinterpret_cast<Word*>(y) + parts.head, parts);
}

void copy(Stream stream, const void* x, void* y, std::int64_t bytes) {
  if (bytes == 0) return;
  const auto* from = static_cast<const std::uint8_t*>(x);
  auto* to = static_cast<std::uint8_t*>(y);
  const std::uintptr_t apart = address(from) - address(to);
  if (apart % 16 == 0)
    copy_by<16>(stream, from, to, bytes);
  else if (apart % 4 == 0)
    copy_by<4>(stream, from, to, bytes);
  else
    copy_by<2>(stream, from, to, bytes);
}

template <typename From, typename To>
void cast(Stream stream, const From* x, To* y, std::int64_t n) {
  map("cast", stream, Identity{}, Operands<From, 1>{{x}}, y, n);
}

template <typename T>
void add(Stream stream, const T* a, const T* b, T* out, std::int64_t n) {
  map("add", stream, Sum{}, Operands<T, 2>{{a, b}}, out, n);
}

template <typename T>
void axpy(Stream stream, float alpha, const T* x, T* y, std::int64_t n) {
  map("axpy", stream, Axpy{alpha}, Operands<T, 2>{{x, y}}, y, n);
}

template <typename T>
void scale(Stream stream, float alpha, const T* x, T* y, std::int64_t n) {
  map("scale", stream, Scale{alpha}, Operands<T, 1>{{x}}, y, n);
}

template <typename T>
void relu_forward(Stream stream, const T* x, T* y, std::int64_t n, float bound) {
  map("relu_forward", stream, Relu<T>{bound}, Operands<T, 1>{{x}}, y, n);
}

template <typename T>
void relu_backward(Stream stream, const T* y, const T* dy, T* dx, std::int64_t n, float bound,
                   bool accumulate) {
  if (accumulate)
    map("relu_backward", stream, ReluBackward<T, 3>{bound}, Operands<T, 3>{{y, dy, dx}}, dx, n);
  else
    map("relu_backward", stream, ReluBackward<T, 2>{bound}, Operands<T, 2>{{y, dy}}, dx, n);
}

template <typename T>
void add_bias(Stream stream, const T* bias, T* y, std::int64_t rows, std::int64_t channels,
              const AfterBias<T>& then) {
  if (rows == 0 || channels == 0) return;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (channels > kMost)
    throw KernelError("add_bias: needs fewer than 2^31 channels, got " + std::to_string(channels));
  // Elements are counted in 32 bits, so as many rows at a time as those hold.
  const std::int64_t together = kMost / channels;
  for (std::int64_t row = 0; row < rows; row += together) {
    T* part = y + row * channels;
    const T* added = then.residual == nullptr ? part : then.residual + row * channels;
    const Parts parts = make_parts(std::min(together, rows - row) * channels, kVec<T>, part, added);
    AfterBias<T> here = then;
    if (then.residual != nullptr) here.residual = added + parts.head;
    const bool aligned_bias = parts.head == 0 && channels % kVec<T> == 0 && aligned16(bias);
    launch("add_bias", add_bias_kernel<T>, blocks_for(parts), {kElementwiseThreads}, 0, stream,
           bias, part + parts.head, here, parts, make_divider(channels), aligned_bias);
  }
}

template <typename T>
void spread_rows(Stream stream, float factor, const float* x, T* y, std::int64_t rows,
                 std::int64_t columns, bool accumulate) {
  if (rows == 0 || columns == 0) return;
  // Elements are counted in 32 bits: so many rows at a time, or so much of one, as those hold.
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const std::int64_t width = std::min(columns, std::int64_t{1} << 30), together = kMost / width;
  for (std::int64_t row = 0; row < rows; row += together)
    for (std::int64_t column = 0; column < columns; column += width) {
      T* part = y + row * columns + column;
      const std::int64_t across = std::min(width, columns - column);
      const std::int64_t n = std::min(together, rows - row) * across;
      const Parts parts = make_parts(n, kVec<T>, part);
      launch("spread_rows", spread_rows_kernel<T>, blocks_for(parts), {kElementwiseThreads}, 0,
             stream, factor, x + row, part + parts.head, parts, make_divider(across), accumulate);
    }
}

#define NF_FILL(T) template void fill(Stream, T*, std::int64_t, double)
#define NF_CAST(From, To) template void cast(Stream, const From*, To*, std::int64_t)
#define NF_ELEMENTWISE(T)                                                                        \
  NF_FILL(T);                                                                                    \
  template void add(Stream, const T*, const T*, T*, std::int64_t);                               \
  template void axpy(Stream, float, const T*, T*, std::int64_t);                                 \
  template void scale(Stream, float, const T*, T*, std::int64_t);                                \
  template void relu_forward(Stream, const T*, T*, std::int64_t, float);                         \
  template void relu_backward(Stream, const T*, const T*, T*, std::int64_t, float, bool);        \
  template void add_bias(Stream, const T*, T*, std::int64_t, std::int64_t, const AfterBias<T>&); \
  template void spread_rows(Stream, float, const float*, T*, std::int64_t, std::int64_t, bool)

NF_ELEMENTWISE(float);
NF_ELEMENTWISE(bf16);
NF_ELEMENTWISE(f16);
NF_FILL(std::uint8_t);
NF_FILL(std::int32_t);
NF_FILL(std::int64_t);
NF_FILL(double);
NF_CAST(float, bf16);
NF_CAST(float, f16);
NF_CAST(bf16, float);
NF_CAST(bf16, f16);
NF_CAST(f16, float);
NF_CAST(f16, bf16);

}  // namespace nf::NF_TARGET
