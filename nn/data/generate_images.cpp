#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/shape.h"
#include "nn/data/image_set.h"

namespace nf::nn {
namespace {

// Grey levels of the parts of an image around the middle of the range.
constexpr float kMiddle = 127.5F;
constexpr float kGratingLevel = 55;
constexpr float kBlobLevel = 55;
constexpr float kNoiseLevel = 60;

/// What the samples of one class have in common.
struct Prototype {
  float frequency_y;  // radians per pixel
  float frequency_x;
  float blob_y;  // pixels
  float blob_x;
  std::vector<float> grating;  // (channels) weights in [-1, 1]
  std::vector<float> blob;     // (channels)
};

float signed_uniform(RandomStream& random) { return 2 * random.uniform() - 1; }

Prototype draw_prototype(const GeneratedOptions& options, RandomStream random) {
  constexpr float kPi = std::numbers::pi_v<float>;
  const float angle = kPi * random.uniform();
  const float cycles = 1.5F + 2.5F * random.uniform();
  Prototype prototype{
      .frequency_y = 2 * kPi * cycles * std::sin(angle) / static_cast<float>(options.height),
      .frequency_x = 2 * kPi * cycles * std::cos(angle) / static_cast<float>(options.width),
      .blob_y = static_cast<float>(options.height) * (0.2F + 0.6F * random.uniform()),
      .blob_x = static_cast<float>(options.width) * (0.2F + 0.6F * random.uniform()),
      .grating = {},
      .blob = {}};
  for (std::int64_t c = 0; c < options.channels; ++c) {
    prototype.grating.push_back(signed_uniform(random));
    // Far from zero, so that every class shows its blob in every channel.
    const float sign = random.uniform() < 0.5F ? -1.0F : 1.0F;
    prototype.blob.push_back(sign * (0.5F + 0.5F * random.uniform()));
  }
  return prototype;
}

/// Rows and columns of one sample: gratings and blobs are separable, which saves the sines.
struct Profiles {
  std::vector<float> sine, cosine, bell;

  Profiles(std::int64_t size, float frequency, float phase, float centre) {
    const float spread = static_cast<float>(size) / 6;
    for (std::int64_t i = 0; i < size; ++i) {
      const auto at = static_cast<float>(i);
      const float distance = (at - centre) / spread;
      sine.push_back(std::sin(frequency * at + phase));
      cosine.push_back(std::cos(frequency * at + phase));
      bell.push_back(std::exp(-0.5F * distance * distance));
    }
  }
};

void draw_sample(const GeneratedOptions& options, const Prototype& prototype, RandomStream random,
                 std::uint8_t* pixel) {
  const float phase = 2 * std::numbers::pi_v<float> * random.uniform();
  const float contrast = 0.5F + 0.5F * random.uniform();
  const float shift_y = static_cast<float>(options.height) / 8 * signed_uniform(random);
  const float shift_x = static_cast<float>(options.width) / 8 * signed_uniform(random);
  const Profiles rows(options.height, prototype.frequency_y, phase, prototype.blob_y + shift_y);
  const Profiles columns(options.width, prototype.frequency_x, 0, prototype.blob_x + shift_x);

  std::uint32_t bits = 0;
  int halves = 0;
  for (std::size_t y = 0; y < rows.sine.size(); ++y)
    for (std::size_t x = 0; x < columns.sine.size(); ++x) {
      const float grating =
          contrast * (rows.sine[y] * columns.cosine[x] + rows.cosine[y] * columns.sine[x]);
      const float blob = rows.bell[y] * columns.bell[x];
      for (std::size_t c = 0; c < prototype.blob.size(); ++c) {
        if (halves == 0) {
          bits = random.next_bits();
          halves = 2;
        }
        // Two bytes add up to triangular noise in [-1, 1].
        const auto sum = static_cast<float>((bits & 0xff) + (bits >> 8 & 0xff));
        bits >>= 16;
        --halves;
        const float value = kMiddle + kGratingLevel * prototype.grating[c] * grating +
                            kBlobLevel * prototype.blob[c] * blob + kNoiseLevel * (sum / 255 - 1);
        *pixel++ = static_cast<std::uint8_t>(std::clamp(value, 0.0F, 255.0F) + 0.5F);
      }
    }
}

}  // namespace

ImageSet generate_images(const GeneratedOptions& options) {
  NF_CHECK(options.count >= 0 && options.height > 0 && options.width > 0 && options.channels > 0 &&
               options.classes > 0,
           "generate_images: extents and classes must be positive, are [{},{},{},{}], {} classes",
           options.count, options.height, options.width, options.channels, options.classes);
  const Shape shape{options.count, options.height, options.width, options.channels};
  ImageSet set{.count = options.count,
               .height = options.height,
               .width = options.width,
               .channels = options.channels,
               .classes = options.classes,
               .pixels = std::vector<std::uint8_t>(static_cast<std::size_t>(shape.numel())),
               .labels = {}};

  // Epoch 0 of the key holds the classes, so that every stream of samples shares them.
  const std::uint64_t class_key = random_key(options.seed, Purpose::generate);
  std::vector<Prototype> prototypes;
  for (std::int64_t c = 0; c < options.classes; ++c)
    prototypes.push_back(
        draw_prototype(options, RandomStream(class_key, static_cast<std::uint64_t>(c))));

  const std::uint64_t sample_key = random_key(options.seed, Purpose::generate, options.stream + 1);
  for (std::int64_t i = 0; i < options.count; ++i) {
    const std::int64_t label = i % options.classes;
    draw_sample(options, prototypes[static_cast<std::size_t>(label)],
                RandomStream(sample_key, static_cast<std::uint64_t>(i)),
                set.pixels.data() + i * set.image_size());
    set.labels.push_back(static_cast<std::int32_t>(label));
  }
  return set;
}

}  // namespace nf::nn
