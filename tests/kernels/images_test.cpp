#include "kernels/images.h"

#include "tests/kernels/device.h"
#if !defined(NF_TESTS_ON_GPU)
#include "tests/kernels/emulated.h"
#endif

namespace nf::NF_TARGET::test {
namespace {

#if !defined(NF_TESTS_ON_GPU)
using simt::test::HugeArray;
using simt::test::WithOptions;
#endif

struct Case {
  const char* name;
  ImageBatch batch;
};

std::vector<Case> cases() {
  return {{"one pixel", {1, 1, 1, 1, 1, 1, false}},
          {"digits, padded", {5, 28, 28, 1, 32, 32, true}},
          {"colour", {3, 32, 32, 3, 32, 32, true}},
          {"one table", {3, 7, 9, 3, 8, 11, false}},
          {"odd", {4, 5, 7, 3, 9, 5, true}},
          {"five channels", {2, 6, 5, 5, 7, 7, true}},
          {"more tables than fit shared memory", {2, 3, 4, 17, 3, 4, true}},
          {"more images than blocks", {2100, 5, 7, 1, 6, 6, false}},
          {"bands of eight rows", {2, 40, 224, 3, 45, 230, true}},
          {"bands of two rows that end between vectors", {2, 9, 1000, 3, 9, 1001, true}},
          {"rows that don't fit shared memory", {1, 5, 2800, 3, 5, 2801, true}},
          {"rows that just fit, in one band", {1, 4, 2048, 1, 4, 2048, false}},
          {"large of small", {1, 1, 1, 1, 200, 210, false}}};
}

/// Some windows as training draws them, some wholly outside.
std::vector<ImageWindow> windows(const ImageBatch& b) {
  std::mt19937 random(3);
  std::vector<ImageWindow> result;
  for (std::int64_t n = 0; n < b.count; ++n) {
    const auto move = [&] { return static_cast<std::int32_t>(random() % 9) - 4; };
    ImageWindow window{move(), move(), static_cast<std::int32_t>(random() % 2)};
    if (n % 5 == 3) window.top = 1000000;
    if (n % 5 == 4) window.left = -2147483647;
    result.push_back(window);
  }
  return result;
}

/// Elements that pixels, tables and output start behind a boundary.
struct Offsets {
  std::int64_t pixels, tables, out;
};
constexpr Offsets kOffsets[] = {{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {3, 3, 3}};

template <typename T>
class KernelsImages : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsImages, StorageTypes);

TYPED_TEST(KernelsImages, AreCutFlippedAndLookedUp) {
  using T = TypeParam;
  for (const Case& c : cases())
    for (const Offsets& offset : kOffsets) {
      const ImageBatch& b = c.batch;
      std::mt19937 random(1);
      std::vector<std::uint8_t> stored(
          static_cast<std::size_t>(b.count * b.height * b.width * b.channels));
      for (std::uint8_t& value : stored) value = static_cast<std::uint8_t>(random());
      const std::int64_t table_channels = b.table_per_channel ? b.channels : 1;
      const std::vector<float> table = random_values<float>(table_channels * 256, 2, -3, 3);
      const std::vector<ImageWindow> window = windows(b);
      DeviceArray<std::uint8_t> pixels(stored, offset.pixels);
      DeviceArray<ImageWindow> device_windows(window);
      DeviceArray<float> tables(table, offset.tables);
      DeviceArray<T> out(b.count * b.out_height * b.out_width * b.channels, offset.out);
      prepare_images(kStream, b, pixels.data(), device_windows.data(), tables.data(), out.data());

      const std::vector<T> actual = out.host();
      std::size_t at = 0;
      for (std::int64_t n = 0; n < b.count; ++n)
        for (std::int64_t y = 0; y < b.out_height; ++y)
          for (std::int64_t x = 0; x < b.out_width; ++x)
            for (std::int64_t k = 0; k < b.channels; ++k, ++at) {
              const ImageWindow& w = window[static_cast<std::size_t>(n)];
              const std::int64_t row = y + w.top;
              const std::int64_t column = (w.flip != 0 ? b.out_width - 1 - x : x) + w.left;
              std::size_t value = 0;
              if (row >= 0 && row < b.height && column >= 0 && column < b.width)
                value = stored[static_cast<std::size_t>(
                    ((n * b.height + row) * b.width + column) * b.channels + k)];
              const float wanted =
                  table[static_cast<std::size_t>(b.table_per_channel ? k * 256 : 0) + value];
              ASSERT_EQ(to_host_float(actual[at]), to_host_float(from_host_float<T>(wanted)))
                  << c.name << ", element " << at;
            }
    }
}

// (value / 255 - mean) / std of images centred in a larger size, black around them, to the bit.
TEST(KernelsImagesNormalised, AsTheHostDoes) {
  constexpr std::int64_t kSize = 28, kPadded = 33, kChannels = 3;
  constexpr float kMean[] = {0.485F, 0.456F, 0.406F}, kStd[] = {0.229F, 0.224F, 0.225F};
  const auto normalised = [&](std::size_t c, std::uint8_t value) {
    return (static_cast<float>(value) / 255.0F - kMean[c]) / kStd[c];
  };
  std::vector<float> table;
  for (std::size_t c = 0; c < kChannels; ++c)
    for (int value = 0; value < 256; ++value)
      table.push_back(normalised(c, static_cast<std::uint8_t>(value)));
  std::mt19937 random(5);
  std::vector<std::uint8_t> stored(2 * kSize * kSize * kChannels);
  for (std::uint8_t& value : stored) value = static_cast<std::uint8_t>(random());
  constexpr std::int32_t kCentre = -2;  // an odd row or column more goes below or right
  DeviceArray<std::uint8_t> pixels(stored);
  DeviceArray<ImageWindow> windows(
      std::vector<ImageWindow>{{kCentre, kCentre, 0}, {kCentre + 3, kCentre - 4, 1}});
  DeviceArray<float> tables(table), out(2 * kPadded * kPadded * kChannels);
  prepare_images(kStream, {2, kSize, kSize, kChannels, kPadded, kPadded, true}, pixels.data(),
                 windows.data(), tables.data(), out.data());

  // Black, then each stored pixel where the window has moved it.
  std::vector<float> expected;
  for (std::int64_t i = 0; i < 2 * kPadded * kPadded; ++i)
    for (std::size_t c = 0; c < kChannels; ++c) expected.push_back(normalised(c, 0));
  for (std::int64_t n = 0; n < 2; ++n)
    for (std::int64_t y = 0; y < kSize; ++y)
      for (std::int64_t x = 0; x < kSize; ++x) {
        const std::int64_t row = n == 0 ? y + 2 : y - 1;
        const std::int64_t column = n == 0 ? x + 2 : kPadded - 1 - (x + 6);
        if (row < 0 || row >= kPadded || column < 0 || column >= kPadded) continue;
        for (std::int64_t c = 0; c < kChannels; ++c)
          expected[static_cast<std::size_t>(((n * kPadded + row) * kPadded + column) * kChannels +
                                            c)] =
              normalised(
                  static_cast<std::size_t>(c),
                  stored[static_cast<std::size_t>(((n * kSize + y) * kSize + x) * kChannels + c)]);
      }
  EXPECT_EQ(out.host(), expected);
}

TEST(KernelsImagesLimits, AllBlackWithoutStoredPixels) {
  DeviceArray<float> tables(random_values<float>(256, 6)), out(2 * 3 * 3);
  DeviceArray<ImageWindow> windows(std::vector<ImageWindow>(2));
  prepare_images<float>(kStream, {2, 0, 4, 1, 3, 3, false}, nullptr, windows.data(), tables.data(),
                        out.data());
  EXPECT_EQ(out.host(), std::vector<float>(18, tables.host()[0]));
}

// Blocks are 2048 at most, whatever the count: each sees to every 2048th image.
TEST(KernelsImagesLimits, MoreThanTwoToTheSixteenthImages) {
  constexpr std::int64_t kCount = (1 << 16) + 2049;
  std::vector<std::uint8_t> stored(kCount);
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<std::uint8_t>(i % 251);
  std::vector<float> table;
  for (int value = 0; value < 256; ++value) table.push_back(static_cast<float>(value));
  DeviceArray<std::uint8_t> pixels(stored);
  DeviceArray<ImageWindow> windows{std::vector<ImageWindow>(kCount)};
  DeviceArray<float> tables(table), out(kCount);
#if !defined(NF_TESTS_ON_GPU)
  // All blocks would take a second here.
  const WithOptions some({.only = {0, 1, 1000, -1}});
#endif
  prepare_images(kStream, {kCount, 1, 1, 1, 1, 1, false}, pixels.data(), windows.data(),
                 tables.data(), out.data());
  const std::vector<float> actual = out.host();
  for (const std::int64_t block : {0, 1, 1000, 2047})
    for (std::int64_t n = block; n < kCount; n += 2048)
      ASSERT_EQ(actual[static_cast<std::size_t>(n)], static_cast<float>(n % 251)) << "image " << n;
}

#if !defined(NF_TESTS_ON_GPU)
TEST(KernelsImagesLimits, MoreThanTwoToTheThirtyFirstElements) {
  constexpr std::int64_t kCount = 2047, kSide = 1100, kLast = kCount - 1;
  constexpr std::int64_t kImage = kSide * kSide;
  static_assert(kLast * kImage > std::int64_t{1} << 31);
  HugeArray<std::uint8_t> pixels(kCount * kImage);
  HugeArray<bf16> out(kCount * kImage);
  if (pixels.failed() || out.failed()) GTEST_SKIP() << "no 8 GiB of addresses";
  std::vector<float> table;
  for (int value = 0; value < 256; ++value) table.push_back(static_cast<float>(value));
  DeviceArray<float> tables(table);
  DeviceArray<ImageWindow> windows{std::vector<ImageWindow>(kCount)};
  const WithOptions last({.only = {-1}});
  pixels.data()[kLast * kImage] = 7;
  pixels.data()[kCount * kImage - 1] = 9;
  // Out of large images, a corner each.
  windows.data()[kLast] = {kSide - 2, kSide - 2, 1};
  prepare_images(kStream, {kCount, kSide, kSide, 1, 2, 2, false}, pixels.data(), windows.data(),
                 tables.data(), out.data());
  EXPECT_EQ(to_host_float(out.data()[kLast * 4 + 2]), 9);
  // Into large images, with few pixels of their own.
  pixels.data()[kLast] = 5;
  windows.data()[kLast] = {-(kSide - 1), -(kSide - 1), 0};
  constexpr std::int64_t kBands = (kSide + 7) / 8, kBlocks = 2048;
  const WithOptions last_band({.only = {(kCount * kBands - 1) % kBlocks}});
  prepare_images(kStream, {kCount, 1, 1, 1, kSide, kSide, false}, pixels.data(), windows.data(),
                 tables.data(), out.data());
  EXPECT_EQ(to_host_float(out.data()[kCount * kImage - 1]), 5);
  EXPECT_EQ(to_host_float(out.data()[kCount * kImage - 2]), 0);
}
#endif

TEST(KernelsImagesLimits, NothingToDoAndTooMuch) {
  DeviceArray<float> out(1), tables(256);
  prepare_images<float>(kStream, {0, 2, 2, 1, 2, 2, false}, nullptr, nullptr, tables.data(),
                        out.data());
  EXPECT_THROW(prepare_images<float>(kStream, {1, 1 << 16, 1 << 15, 1, 1, 1, false}, nullptr,
                                     nullptr, tables.data(), out.data()),
               KernelError);
}

}  // namespace
}  // namespace nf::NF_TARGET::test
