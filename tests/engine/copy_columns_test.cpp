#include <gtest/gtest.h>

#include <numeric>

#include "engine/tensor.h"

namespace nf::test {
namespace {

struct Columns {
  std::int64_t rows, columns, first, width;
};

/// What a backend copies, by its own way or, `row_by_row`, the one that all have.
std::vector<float> copied(const ContextPtr& context, const Columns& c, bool row_by_row) {
  std::vector<float> values(static_cast<std::size_t>(c.rows * c.columns));
  std::iota(values.begin(), values.end(), 0.0F);
  const Tensor from =
      Tensor::from_host<float>(context, {c.rows, c.columns}, std::span<const float>(values));
  Tensor to = Tensor::full(context, {c.rows, c.width}, -1.0);
  Backend& backend = context->backend();
  if (row_by_row)
    backend.Backend::copy_columns(to.mutable_view(), from.view(), c.first);
  else
    backend.copy_columns(to.mutable_view(), from.view(), c.first);
  return to.to_host<float>();
}

TEST(CopyColumns, TakesTheNamedOnesOfEachRow) {
  const ContextPtr context = Context::create({.budget = std::int64_t{64} << 20, .threads = 3});
  for (const Columns& c :
       {Columns{1, 1, 0, 1}, Columns{5, 7, 0, 7}, Columns{5, 7, 3, 2}, Columns{37, 21, 20, 1},
        Columns{0, 4, 1, 2}, Columns{4, 3, 1, 0}, Columns{4097, 130, 65, 65}}) {
    SCOPED_TRACE(fmt::format("{} of {}x{} from {} on", c.width, c.rows, c.columns, c.first));
    std::vector<float> expected;
    for (std::int64_t row = 0; row < c.rows; ++row)
      for (std::int64_t k = 0; k < c.width; ++k)
        expected.push_back(static_cast<float>(row * c.columns + c.first + k));
    EXPECT_EQ(copied(context, c, false), expected);
    EXPECT_EQ(copied(context, c, true), expected);
  }
}

TEST(CopyColumns, RefusesWhatDoesNotFit) {
  const ContextPtr context = Context::create({.budget = std::int64_t{1} << 20, .threads = 1});
  const Tensor from = Tensor::full(context, {4, 6}, 1.0);
  const auto refused = [&](const Shape& shape, DType dtype, std::int64_t first) {
    Tensor to = Tensor::full(context, shape, 0.0, dtype);
    EXPECT_THROW(context->backend().copy_columns(to.mutable_view(), from.view(), first), Error);
  };
  refused({4, 3}, DType::f32, 4);
  refused({4, 3}, DType::f32, -1);
  refused({3, 3}, DType::f32, 0);
  refused({4, 3}, DType::f64, 0);
  refused({4, 3, 1}, DType::f32, 0);
}

}  // namespace
}  // namespace nf::test
