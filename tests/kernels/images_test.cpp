#include "kernels/images.h"

#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {
namespace {

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
          {"more images than blocks", {2100, 2, 2, 1, 2, 2, false}}};
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

template <typename T>
class KernelsImages : public ::testing::Test {};
TYPED_TEST_SUITE(KernelsImages, StorageTypes);

TYPED_TEST(KernelsImages, AreCutFlippedAndLookedUp) {
  using T = TypeParam;
  for (const Case& c : cases())
    for (const std::int64_t offset : {0, 1}) {
      const ImageBatch& b = c.batch;
      std::mt19937 random(1);
      std::vector<std::uint8_t> stored(
          static_cast<std::size_t>(b.count * b.height * b.width * b.channels));
      for (std::uint8_t& value : stored) value = static_cast<std::uint8_t>(random());
      const std::int64_t table_channels = b.table_per_channel ? b.channels : 1;
      const std::vector<float> table = random_values<float>(table_channels * 256, 2, -3, 3);
      const std::vector<ImageWindow> window = windows(b);
      DeviceArray<std::uint8_t> pixels(stored, offset);
      DeviceArray<ImageWindow> device_windows(window);
      DeviceArray<float> tables(table, offset);
      DeviceArray<T> out(b.count * b.out_height * b.out_width * b.channels, offset);
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
