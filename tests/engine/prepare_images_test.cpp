// Stored pixels made ready on the device: every value to the bit, and what is refused.
#include <gmock/gmock.h>

#include <random>

#include "engine/ops/ops.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

struct Images {
  Shape stored, out;
  std::int64_t tables;
  std::vector<std::uint8_t> pixels;
  std::vector<ImageWindow> windows;
  std::vector<float> values;  // (tables, 256)

  Images(const Shape& stored, std::int64_t height, std::int64_t width, std::int64_t tables)
      : stored(stored), out({stored[0], height, width, stored[3]}), tables(tables) {
    std::mt19937 random(7);
    for (std::int64_t i = 0; i < stored.numel(); ++i)
      pixels.push_back(static_cast<std::uint8_t>(random()));
    for (std::int64_t i = 0; i < 256 * tables; ++i)
      values.push_back(static_cast<float>(i) / 255.0F - 0.4F);
    const auto move = [&] { return static_cast<std::int32_t>(random() % 13) - 6; };
    for (std::int64_t n = 0; n < stored[0]; ++n)
      windows.push_back({move(), move(), static_cast<std::int32_t>(n % 2)});
  }

  float expected(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t c) const {
    const ImageWindow& window = windows[static_cast<std::size_t>(n)];
    const std::int64_t row = y + window.top;
    const std::int64_t column = window.left + (window.flip != 0 ? out[2] - 1 - x : x);
    std::size_t byte = 0;
    if (row >= 0 && row < stored[1] && column >= 0 && column < stored[2])
      byte = pixels[static_cast<std::size_t>(
          ((n * stored[1] + row) * stored[2] + column) * stored[3] + c)];
    return values[static_cast<std::size_t>(tables > 1 ? c : 0) * 256 + byte];
  }
};

struct Operands {
  Tensor pixels, windows, tables, out;

  Operands(const ContextPtr& context, const Images& images)
      : pixels(Tensor::from_host<std::uint8_t>(context, images.stored, images.pixels)),
        windows(Tensor::empty(context, {images.stored[0], 3}, DType::i32)),
        tables(Tensor::from_host<float>(context, {images.tables, 256}, images.values)),
        out(Tensor::full(context, images.out, -1.0)) {
    windows.copy_from_host(images.windows.data());
  }
  void prepare() { prepare_images(pixels, windows, tables, out); }
};

class PrepareImages : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
};

TEST_P(PrepareImages, CutsFlipsAndLooksUp) {
  const ContextPtr context = GetParam().context(kThreads);
  // Enough rows for every thread, then odd ones, a single pixel, more channels than colours.
  for (const Images& images : {Images({9, 28, 28, 1}, 32, 32, 1),
                               Images({16, 32, 32, 3}, 32, 32, 3), Images({3, 5, 7, 3}, 9, 5, 1),
                               Images({1, 1, 1, 1}, 1, 1, 1), Images({2, 6, 5, 19}, 7, 7, 19)}) {
    Operands operands(context, images);
    operands.prepare();
    const std::vector<float> actual = operands.out.to_host<float>();
    std::size_t at = 0;
    for (std::int64_t n = 0; n < images.out[0]; ++n)
      for (std::int64_t y = 0; y < images.out[1]; ++y)
        for (std::int64_t x = 0; x < images.out[2]; ++x)
          for (std::int64_t c = 0; c < images.out[3]; ++c)
            ASSERT_EQ(actual[at++], images.expected(n, y, x, c))
                << images.stored.str() << " at " << n << ' ' << y << ' ' << x << ' ' << c;
  }
}

TEST_P(PrepareImages, RefusesWhatDoesNotFit) {
  const ContextPtr context = GetParam().context();
  const Images images({2, 4, 5, 3}, 4, 4, 3);
  const auto refused = [&](const char* message, auto spoil) {
    Operands operands(context, images);
    spoil(operands);
    EXPECT_THAT(error_text([&] { operands.prepare(); }), ::testing::HasSubstr(message));
  };
  const auto empty = [&](const Shape& shape, DType dtype) {
    return Tensor::empty(context, shape, dtype);
  };
  refused("the input is an empty tensor", [](Operands& o) { o.pixels = {}; });
  refused("the output is an empty tensor", [](Operands& o) { o.out = {}; });
  refused("input must be u8 [2,4,5,3], got f32 [2,4,5,3]", [&](Operands& o) {
    o.pixels = empty({2, 4, 5, 3}, DType::f32);
  });
  refused("input must be (N, H, W, C)", [&](Operands& o) {
    o.pixels = empty({2, 4, 5}, DType::u8);
  });
  refused("windows must be i32 [2,3], got i32 [3,3]", [&](Operands& o) {
    o.windows = empty({3, 3}, DType::i32);
  });
  refused("tables must be f32 [3,256], got f32 [2,256]", [&](Operands& o) {
    o.tables = empty({2, 256}, DType::f32);
  });
  refused("output must be f32 [2,4,4,3], got f32 [2,4,4,1]", [&](Operands& o) {
    o.out = empty({2, 4, 4, 1}, DType::f32);
  });
  refused("output must be f32 [2,4,4,3], got i32 [2,4,4,3]", [&](Operands& o) {
    o.out = empty({2, 4, 4, 3}, DType::i32);
  });
  refused("different contexts", [&](Operands& o) {
    o.tables = Tensor::empty(GetParam().context(), {3, 256}, DType::f32);
  });
}

TEST(PrepareImagesErrors, ImagesBeyondTheKernelsIndices) {
  const ContextPtr context = make_meta_context({});
  Tensor out = Tensor::empty(context, {1, 2, 2, 1});
  EXPECT_EQ(error_text([&] {
              prepare_images(Tensor::empty(context, {1, 1 << 16, 1 << 15, 1}, DType::u8),
                             Tensor::empty(context, {1, 3}, DType::i32),
                             Tensor::empty(context, {1, 256}), out);
            }),
            "prepare_images: an image of [65536,32768,1] has 2^31 elements or more");
}

INSTANTIATE_TEST_SUITE_P(Op, PrepareImages, ::testing::ValuesIn([] {
                           std::vector<DevicePath> paths = device_paths();
                           std::erase_if(paths, [](const DevicePath& path) {
                             return path.dtype == DType::f64 || !path.onednn;
                           });
                           return paths;
                         }()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nf::test
