#include "nn/data/image_set.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <system_error>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/shape.h"
#include "nn/data/idx.h"

namespace nf::nn {
namespace {

void check_index(const ImageSet& set, std::int64_t index, const char* who) {
  NF_CHECK(index >= 0 && index < set.count, "{}: index must be in [0, {}), is {}", who, set.count,
           index);
}

/// Validation samples of each class: proportional, rounded by largest remainder.
std::vector<std::int64_t> class_quotas(const std::vector<std::int64_t>& sizes, std::int64_t total,
                                       std::int64_t wanted) {
  std::vector<std::int64_t> quotas, remainders;
  for (const std::int64_t size : sizes) {
    quotas.push_back(size * wanted / total);
    remainders.push_back(size * wanted % total);
  }
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  std::int64_t missing = wanted - std::accumulate(quotas.begin(), quotas.end(), std::int64_t{0});
  for (std::size_t i = 0; missing > 0; ++i, --missing) ++quotas[order[i]];
  return quotas;
}

}  // namespace

void check_image_set(const ImageSet& set) {
  NF_CHECK(set.count >= 0 && set.height > 0 && set.width > 0 && set.channels > 0 && set.classes > 0,
           "image set: extents and classes must be positive, are [{},{},{},{}] with {} classes",
           set.count, set.height, set.width, set.channels, set.classes);
  const Shape shape{set.count, set.height, set.width, set.channels};
  NF_CHECK(static_cast<std::int64_t>(set.pixels.size()) == shape.numel(),
           "image set: {} needs {} pixel bytes, has {}", shape.str(), shape.numel(),
           set.pixels.size());
  NF_CHECK(static_cast<std::int64_t>(set.labels.size()) == set.count,
           "image set: {} images need as many labels, has {}", set.count, set.labels.size());
  for (std::size_t i = 0; i < set.labels.size(); ++i)
    NF_CHECK(set.labels[i] >= 0 && set.labels[i] < set.classes,
             "image set: label {} must be in [0, {}), is {}", i, set.classes, set.labels[i]);
}

ImageSet load_idx_images(const std::filesystem::path& images_path,
                         const std::filesystem::path& labels_path, std::int64_t classes) {
  NF_CHECK(classes >= 0, "load_idx_images: classes must not be negative, is {}", classes);
  IdxFile images = read_idx(images_path);
  if (images.extents.size() != 3)
    fail_data("{}: byte 3: images have rank 3 (count, height, width), this file has rank {}",
              images_path.string(), images.extents.size());
  for (std::size_t i = 0; i < 3; ++i)
    if (images.extents[i] == 0)
      fail_data("{}: byte {}: extent {} must be positive, is 0", images_path.string(), 4 + 4 * i,
                i);
  const IdxFile labels = read_idx(labels_path);
  if (labels.extents.size() != 1)
    fail_data("{}: byte 3: labels have rank 1, this file has rank {}", labels_path.string(),
              labels.extents.size());
  if (labels.extents[0] != images.extents[0])
    fail_data("{}: byte 4: the count of labels must be that of the images, is {}, {} has {}",
              labels_path.string(), labels.extents[0], images_path.string(), images.extents[0]);
  for (std::size_t i = 0; i < labels.data.size() && classes > 0; ++i)
    if (labels.data[i] >= classes)
      fail_data("{}: byte {}: label {} must be below {}, is {}", labels_path.string(), 8 + i, i,
                classes, labels.data[i]);
  if (classes == 0)
    classes = std::max(2, 1 + *std::max_element(labels.data.begin(), labels.data.end()));

  return {.count = images.extents[0],
          .height = images.extents[1],
          .width = images.extents[2],
          .channels = 1,
          .classes = classes,
          .pixels = std::move(images.data),
          .labels = {labels.data.begin(), labels.data.end()}};
}

IdxPaths find_idx(const std::filesystem::path& folder, Split split) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored))
    fail_data("{}: the folder does not exist", folder.string());
  const std::string prefix = split == Split::train ? "train" : "t10k";
  const auto find = [&](const std::string& name) {
    for (const std::string& candidate : {name, name + ".gz"}) {
      const std::filesystem::path path = folder / candidate;
      if (std::filesystem::exists(path, ignored)) return path;
    }
    fail_data("{}: the folder holds neither {} nor {}.gz", folder.string(), name, name);
  };
  return {find(prefix + "-images-idx3-ubyte"), find(prefix + "-labels-idx1-ubyte")};
}

IndexSplit split_validation(const ImageSet& set, const ValidationOptions& options) {
  check_image_set(set);
  std::int64_t wanted = options.count;
  if (wanted < 0) {
    NF_CHECK(options.fraction >= 0 && options.fraction < 1,
             "split_validation: fraction must be in [0, 1), is {}", options.fraction);
    wanted = std::llround(options.fraction * static_cast<double>(set.count));
  }
  NF_CHECK(wanted < set.count,
           "split_validation: validation must leave samples to train on, takes {} of {}", wanted,
           set.count);

  std::vector<std::vector<std::int64_t>> members(static_cast<std::size_t>(set.classes));
  for (std::int64_t i = 0; i < set.count; ++i)
    members[static_cast<std::size_t>(set.labels[static_cast<std::size_t>(i)])].push_back(i);
  std::vector<std::int64_t> sizes;
  for (const auto& of_class : members) sizes.push_back(static_cast<std::int64_t>(of_class.size()));
  const auto quotas = class_quotas(sizes, set.count, wanted);

  IndexSplit result;
  const std::uint64_t key = random_key(options.seed, Purpose::split);
  for (std::size_t label = 0; label < members.size(); ++label) {
    RandomStream random(key, label);
    const auto order = permutation(sizes[label], random);
    for (std::size_t i = 0; i < order.size(); ++i) {
      auto& part = static_cast<std::int64_t>(i) < quotas[label] ? result.validation : result.train;
      part.push_back(members[label][static_cast<std::size_t>(order[i])]);
    }
  }
  std::sort(result.train.begin(), result.train.end());
  std::sort(result.validation.begin(), result.validation.end());
  return result;
}

std::vector<std::int64_t> all_indices(const ImageSet& set) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(set.count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

ImageSet subset(const ImageSet& set, std::span<const std::int64_t> indices) {
  ImageSet result{.count = static_cast<std::int64_t>(indices.size()),
                  .height = set.height,
                  .width = set.width,
                  .channels = set.channels,
                  .classes = set.classes,
                  .pixels = {},
                  .labels = {}};
  result.pixels.reserve(indices.size() * static_cast<std::size_t>(set.image_size()));
  result.labels.reserve(indices.size());
  for (const std::int64_t index : indices) {
    check_index(set, index, "subset");
    const auto first = set.pixels.begin() + index * set.image_size();
    result.pixels.insert(result.pixels.end(), first, first + set.image_size());
    result.labels.push_back(set.labels[static_cast<std::size_t>(index)]);
  }
  return result;
}

ChannelStatistics channel_statistics(const ImageSet& set, std::span<const std::int64_t> indices) {
  NF_CHECK(!indices.empty(), "channel_statistics: at least one image is needed, got 0");
  const auto channels = static_cast<std::size_t>(set.channels);
  std::vector<std::uint64_t> sum(channels), squares(channels);
  for (const std::int64_t index : indices) {
    check_index(set, index, "channel_statistics");
    const std::uint8_t* pixel = set.pixels.data() + index * set.image_size();
    for (std::int64_t i = 0; i < set.height * set.width; ++i)
      for (std::size_t c = 0; c < channels; ++c) {
        const std::uint64_t value = *pixel++;
        sum[c] += value;
        squares[c] += value * value;
      }
  }
  const auto pixels = indices.size() * static_cast<std::size_t>(set.height * set.width);
  const auto first_pixel = static_cast<std::size_t>(indices[0] * set.image_size());
  const auto n = static_cast<double>(pixels);
  ChannelStatistics result;
  for (std::size_t c = 0; c < channels; ++c) {
    const double mean = static_cast<double>(sum[c]) / n;
    const double variance = std::max(0.0, static_cast<double>(squares[c]) / n - mean * mean);
    // Compared as integers: rounding could leave a trace of variance in a constant channel.
    const auto first = std::uint64_t{set.pixels[first_pixel + c]};
    const bool constant = sum[c] == pixels * first && squares[c] == pixels * first * first;
    result.mean.push_back(static_cast<float>(mean / 255));
    result.std.push_back(constant ? 1.0F : static_cast<float>(std::sqrt(variance) / 255));
  }
  return result;
}

}  // namespace nf::nn
