#include "engine/tensor.h"

#include <limits>
#include <numeric>

#include "tests/support/expect.h"

namespace nf::test {
namespace {

Tensor counting(const ContextPtr& context, const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0F);
  return Tensor::from_host<float>(context, shape, values);
}

using Floats = std::vector<float>;

TEST(Tensor, HoldsWhatTheHostGave) {
  const ContextPtr c = cpu_context();
  EXPECT_EQ(counting(c, {2, 3}).to_host<float>(), (Floats{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(Tensor::full(c, {3}, 2.5).to_host<float>(), (Floats{2.5F, 2.5F, 2.5F}));
  EXPECT_EQ(Tensor::full(c, {2}, -7, DType::i64).to_host<std::int64_t>(),
            (std::vector<std::int64_t>{-7, -7}));
  const std::vector<std::uint8_t> bytes{1, 255};
  EXPECT_EQ(Tensor::from_host<std::uint8_t>(c, {2}, bytes).to_host<std::uint8_t>(), bytes);
}

TEST(Tensor, SizesAndTypesMustFit) {
  const ContextPtr c = cpu_context();
  const Floats three{1, 2, 3};
  EXPECT_EQ(error_text([&] {
              Tensor::from_host<float>(c, {2, 2}, three);
            }),
            "tensor: 3 values given for shape [2,2]");
  EXPECT_EQ(error_text([&] { counting(c, {2}).to_host<double>(); }),
            "tensor: holds f32, asked for as f64");
  EXPECT_EQ(error_text([&] {
              Tensor::empty(c, {std::int64_t{1} << 61, 2});
            }),
            "tensor: [2305843009213693952,2] of f32 is more than 64 bits count");
}

TEST(Tensor, EmptyHandlesSayWhatTheyLack) {
  const Tensor empty;
  EXPECT_FALSE(empty);
  EXPECT_EQ(error_text([&] { empty.shape(); }), "tensor: an empty tensor has no shape");
  EXPECT_EQ(error_text([&] { empty.dtype(); }), "tensor: an empty tensor has no type");
  EXPECT_EQ(error_text([&] { empty.context(); }), "tensor: an empty tensor has no context");
  EXPECT_EQ(error_text([&] { empty.grad(); }), "tensor: an empty tensor has no gradient");
  EXPECT_FALSE(empty.requires_grad());
  EXPECT_FALSE(empty.view());
}

TEST(Tensor, MemoryGoesWithTheLastHandle) {
  const ContextPtr c = cpu_context();
  const auto live = [&] { return c->pool().stats().live; };
  Tensor a = Tensor::empty(c, {100});
  const std::int64_t one = live();
  EXPECT_GE(one, 400);
  Tensor view = a.reshaped({4, 25});
  a = Tensor();
  EXPECT_EQ(live(), one) << "a view holds the memory too";
  Tensor copy = view;
  view = Tensor();
  EXPECT_EQ(live(), one);
  copy = Tensor();
  EXPECT_EQ(live(), 0);
}

TEST(Tensor, OutlivesItsContextHandle) {
  Tensor tensor = counting(cpu_context(), {3});
  EXPECT_EQ(tensor.to_host<float>(), (Floats{0, 1, 2}));
}

TEST(Tensor, ViewsShareMemoryAndVersion) {
  Tensor a = counting(cpu_context(), {4, 3});
  Tensor rows = a.rows(1, 3), flat = a.reshaped({12});
  EXPECT_EQ(rows.shape(), Shape({2, 3}));
  EXPECT_EQ(rows.to_host<float>(), (Floats{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(rows.rows(1, 2).to_host<float>(), (Floats{6, 7, 8}));
  EXPECT_EQ(a.rows(2, 2).numel(), 0);
  const std::uint64_t before = a.version();
  const Floats values{-1, -2, -3, -4, -5, -6};
  rows.copy_from_host(values.data());
  EXPECT_EQ(flat.to_host<float>(), (Floats{0, 1, 2, -1, -2, -3, -4, -5, -6, 9, 10, 11}));
  EXPECT_GT(a.version(), before);
  EXPECT_EQ(a.version(), flat.version());
  const std::uint64_t read = a.version();
  a.view();
  a.to_host<float>();
  EXPECT_EQ(a.version(), read) << "reading is no edit";
}

TEST(Tensor, ViewsMustFit) {
  const Tensor a = counting(cpu_context(), {4, 3});
  EXPECT_EQ(error_text([&] { a.reshaped({5}); }), "reshape: [4,3] has 12 elements, [5] has 5");
  EXPECT_EQ(error_text([&] { a.rows(2, 5); }), "rows: range 2 to 5 of [4,3]");
  EXPECT_THROW(a.rows(-1, 2), Error);
  EXPECT_THROW(a.rows(3, 2), Error);
}

TEST(Tensor, ViewsHaveNoHistory) {
  Tensor a = counting(cpu_context(), {4, 3});
  a.set_requires_grad(true);
  EXPECT_FALSE(a.reshaped({12}).requires_grad());
  EXPECT_EQ(
      error_text([&] { a.rows(0, 1); }),
      "rows: no gradient flows through a range of rows, but [4,3] wants one; detach it first");
  EXPECT_EQ(a.detached().rows(1, 2).to_host<float>(), (Floats{3, 4, 5}));
}

TEST(Tensor, CloneHasMemoryOfItsOwn) {
  Tensor a = counting(cpu_context(), {3});
  Tensor b = a.clone(Category::buffer);
  b.backend().fill(b.mutable_view(), 9);
  EXPECT_EQ(a.to_host<float>(), (Floats{0, 1, 2}));
  EXPECT_EQ(b.to_host<float>(), (Floats{9, 9, 9}));
  EXPECT_NE(a.id(), b.id());
  const BytesByCategory held = a.pool().stats().by_category;
  EXPECT_GT(held[static_cast<std::size_t>(Category::buffer)], 0);
}

TEST(Tensor, DetachedSharesMemoryWithoutHistory) {
  Tensor a = counting(cpu_context(), {3});
  a.set_requires_grad(true);
  const Tensor b = a.detached();
  EXPECT_FALSE(b.requires_grad());
  EXPECT_EQ(b.view().data, a.view().data);
  EXPECT_NE(a.id(), b.id());
}

TEST(Tensor, UniqueMeansOneHandleOnTheMemory) {
  Tensor a = counting(cpu_context(), {4});
  EXPECT_TRUE(a.unique());
  {
    const Tensor copy = a;
    EXPECT_FALSE(a.unique());
  }
  EXPECT_TRUE(a.unique());
  {
    const Tensor view = a.reshaped({2, 2});
    EXPECT_FALSE(a.unique());
    EXPECT_FALSE(view.unique());
  }
  EXPECT_TRUE(a.unique());
  EXPECT_FALSE(Tensor().unique());
}

TEST(Context, BudgetsAreWholeGranules) {
  ContextOptions options{.budget = 1};
  EXPECT_NE(error_text([&] { Context::create(options); }).find("a budget of 1 bytes is less than"),
            std::string::npos);
  options.budget = -1;
  EXPECT_EQ(error_text([&] { Context::create(options); }),
            "context: the budget must not be negative, got -1");
  options.budget = std::numeric_limits<std::int64_t>::max();
  EXPECT_NE(error_text([&] { Context::create(options); }).find("cpu: can't reserve"),
            std::string::npos);
  const std::int64_t granule = cpu_context()->backend().alignment();
  options.budget = 5 * granule - 1;
  const ContextPtr c = Context::create(options);
  EXPECT_EQ(c->pool().stats().limit, 4 * granule);
  const Tensor most = Tensor::empty(c, {4 * granule}, DType::u8);
  EXPECT_THROW(Tensor::empty(c, {1}, DType::u8), OutOfBudget);
}

}  // namespace
}  // namespace nf::test
