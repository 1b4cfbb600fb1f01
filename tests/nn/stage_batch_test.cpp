// A batch has the same bits on a device in whichever form it came.
#include "nn/stage_batch.h"

#include <gmock/gmock.h>

#include "engine/memory/pool.h"
#include "nn/data/loader.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using test::DevicePath;
using test::error_text;
using testing::HasSubstr;

constexpr std::int64_t kImages = 11, kImagesPerBatch = 4;

struct Images {
  std::int64_t height, width, channels;
};

/// Each option by itself and all of them together; an odd pad, a crop beyond the image.
std::vector<TransformOptions> transforms(std::int64_t channels) {
  std::vector<TransformOptions> all(5);
  all[1].pad_to_height = 10;
  all[1].pad_to_width = 13;
  all[2].crop_padding = 9;
  all[3].flip = true;
  all[4] = {.mean = {},
            .std = {},
            .pad_to_height = 9,
            .pad_to_width = 12,
            .crop_padding = 3,
            .flip = true};
  for (std::int64_t c = 0; c < channels; ++c) {
    all[4].mean.push_back(0.3F + 0.1F * static_cast<float>(c));
    all[4].std.push_back(0.2F + 0.05F * static_cast<float>(c));
  }
  return all;
}

std::shared_ptr<const ImageSet> image_set(const Images& images) {
  return std::make_shared<ImageSet>(generate_images({.count = kImages,
                                                     .height = images.height,
                                                     .width = images.width,
                                                     .channels = images.channels,
                                                     .seed = 3}));
}

Batch pixel_batch() {
  const auto set = image_set({5, 4, 3});
  return Loader(set, all_indices(*set), Transform({.mean = {}, .std = {}, .pad_to_height = 6}),
                {.form = SampleForm::pixels})
      .read(0, 2, 0);
}

class StageBatch : public ::testing::TestWithParam<DevicePath> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(GetParam()); }
};

TEST_P(StageBatch, PixelsBecomeTheHostsValues) {
  const ContextPtr context = GetParam().context();
  for (const Images& images : {Images{8, 8, 1}, Images{7, 5, 3}, Images{9, 11, 1}, Images{1, 1, 2}})
    for (const TransformOptions& options : transforms(images.channels))
      for (const std::uint64_t seed : {0, 1}) {
        const auto set = image_set(images);
        LoaderOptions loading{.shuffle = true, .augment = true, .seed = seed, .threads = 2};
        Loader values(set, all_indices(*set), Transform(options), loading);
        loading.form = SampleForm::pixels;
        Loader pixels(set, all_indices(*set), Transform(options), loading);
        const Shape sample = values.sample_shape();
        values.start(kImagesPerBatch, 5);
        pixels.start(kImagesPerBatch, 5);
        std::int64_t seen = 0;
        while (const Batch* wanted = values.next()) {
          const Batch* stored = pixels.next();
          ASSERT_NE(stored, nullptr);
          ASSERT_EQ(stored->format, pixels.format());
          EXPECT_FALSE(wanted->format);
          const DeviceBatch actual = stage_batch(context, host_batch(*stored, sample));
          ASSERT_EQ(actual.images.to_host<float>(), wanted->images) << sample.str();
          EXPECT_EQ(actual.labels.to_host<std::int32_t>(), wanted->labels);
          EXPECT_EQ(stage_images(context, host_batch(*wanted, sample)).to_host<float>(),
                    wanted->images);
          seen += wanted->size;
        }
        EXPECT_EQ(pixels.next(), nullptr);
        EXPECT_EQ(seen, kImages);
      }
}

TEST_P(StageBatch, PixelsLeaveTheDeviceAndTheirBytesAreThePlanners) {
  const Batch batch = pixel_batch();
  const HostBatch host = host_batch(batch, {6, 4, 3});
  const ContextPtr context = GetParam().context();
  const ContextPtr meta = make_meta_context(context->options());
  const DeviceBatch staged = stage_batch(context, host);
  const DeviceBatch planned =
      stage_batch(meta, {.size = 2, .sample = {6, 4, 3}, .format = batch.format});
  const PoolStats measured = context->pool().stats(), predicted = meta->pool().stats();
  EXPECT_EQ(measured.peak_live, predicted.peak_live);
  EXPECT_EQ(measured.peak_reserved, predicted.peak_reserved);
  EXPECT_EQ(measured.live, predicted.live);
  EXPECT_GT(measured.peak_live, measured.live);
  const DeviceBatch values =
      stage_batch(meta, {.size = 2, .sample = {6, 4, 3}, .images = nullptr, .labels = nullptr});
  EXPECT_EQ(meta->pool().stats().live, 2 * measured.live);
}

TEST_P(StageBatch, PartsAreThoseOfTheWhole) {
  const ContextPtr context = GetParam().context();
  const auto set = image_set({7, 5, 3});
  const Transform transform({.mean = {}, .std = {}, .pad_to_height = 9, .pad_to_width = 9});
  for (const SampleForm form : {SampleForm::values, SampleForm::pixels}) {
    const Batch batch = Loader(set, all_indices(*set), transform, {.form = form}).read(1, 9, 0);
    const HostBatch whole = host_batch(batch, {9, 9, 3});
    const auto values = stage_images(context, whole).to_host<float>();
    const DeviceBatch part = stage_batch(context, whole.part(3, 2));
    EXPECT_THAT(part.images.to_host<float>(),
                testing::ElementsAreArray(values.begin() + 3 * 243, values.begin() + 5 * 243));
    EXPECT_THAT(part.labels.to_host<std::int32_t>(),
                testing::ElementsAre(batch.labels[3], batch.labels[4]));
    EXPECT_EQ(error_text([&] { whole.part(8, 2); }), "batch: 2 samples from the 8th on, of 9");
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, StageBatch, ::testing::ValuesIn([] {
                           std::vector<DevicePath> paths = test::device_paths();
                           std::erase_if(paths, [](const DevicePath& path) {
                             return path.dtype == DType::f64 || !path.onednn;
                           });
                           return paths;
                         }()),
                         [](const auto& info) { return info.param.name; });

TEST(SampleFormOfDevices, GpusPrepareImagesAndTheirPlannerSaysSo) {
  EXPECT_EQ(sample_form(test::cpu_context()->backend()), SampleForm::values);
  EXPECT_EQ(sample_form(make_meta_context({})->backend()), SampleForm::values);
#if defined(NF_SIMT)
  const ContextOptions simt{.device = {DeviceKind::simt}};
  EXPECT_EQ(sample_form(Context::create(simt)->backend()), SampleForm::pixels);
  EXPECT_EQ(sample_form(make_meta_context(simt)->backend()), SampleForm::pixels);
#endif
}

TEST(HostBatches, OfPixelsMustHoldWhatTheySay) {
  const Shape sample{6, 4, 3};
  host_batch(pixel_batch(), sample);
  const auto refused = [&](const char* message, auto spoil) {
    Batch batch = pixel_batch();
    spoil(batch);
    EXPECT_THAT(error_text([&] { host_batch(batch, sample); }), HasSubstr(message));
  };
  refused("2 samples stored as [5,4,3] must come with 120 pixels",
          [](Batch& b) { b.pixels.pop_back(); });
  refused("got 120, 1, 256, 2 and 0", [](Batch& b) { b.windows.pop_back(); });
  refused("got 120, 2, 255, 2 and 0", [](Batch& b) { b.tables.pop_back(); });
  refused("got 120, 2, 256, 3 and 0", [](Batch& b) { b.labels.push_back(0); });
  refused("got 120, 2, 256, 2 and 1", [](Batch& b) { b.images.push_back(0); });
  refused("3 samples stored as", [](Batch& b) { b.size = 3; });
  refused("samples of [6,4,3] can't be made of stored pixels [5,4,1] and 1 tables", [](Batch& b) {
    b.format->stored = {5, 4, 1};
  });
  refused("can't be made of stored pixels [5,4,3] and 2 tables",
          [](Batch& b) { b.format->tables = 2; });
  // Values beside pixels that nothing speaks of.
  refused("values must come without pixels", [](Batch& b) {
    b.format.reset();
    b.images.resize(2 * 72);
  });
}

}  // namespace
}  // namespace nf::nn
