// Labelled images in host memory: read from IDX files or generated, split and measured.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace nf::nn {

struct ImageSet {
  std::int64_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::int64_t classes = 0;
  std::vector<std::uint8_t> pixels;  // (count, height, width, channels)
  std::vector<std::int32_t> labels;  // (count), in [0, classes)

  std::int64_t image_size() const { return height * width * channels; }
};

/// Throws Error unless extents are positive, vectors have the sizes they promise and labels lie in
/// [0, classes). A count of 0 is allowed.
void check_image_set(const ImageSet& set);

/// Reads grey images (rank 3) and their labels (rank 1). `classes` 0 stands for the largest label
/// plus one, at least 2. Throws DataError for damaged files, no images, counts that disagree and
/// labels that are not below `classes` where it is given.
ImageSet load_idx_images(const std::filesystem::path& images_path,
                         const std::filesystem::path& labels_path, std::int64_t classes = 0);

enum class Split { train, test };

struct IdxPaths {
  std::filesystem::path images;
  std::filesystem::path labels;
};

/// The files of one split under their standard names (train-images-idx3-ubyte, …), as they are or
/// with ".gz". Throws DataError that names the folder, where it exists with both names tried.
IdxPaths find_idx(const std::filesystem::path& folder, Split split);

struct GeneratedOptions {
  std::int64_t count = 1000;
  std::int64_t height = 32;
  std::int64_t width = 32;
  std::int64_t channels = 3;
  std::int64_t classes = 10;
  std::uint64_t seed = 0;
  /// Sets of one seed show the same classes; different streams (train, test) other samples.
  std::uint64_t stream = 0;
};

/// Images that can be learnt: each class has a grating and a blob of its own, each sample shifts
/// them and adds noise. Sample i has label i % classes. A pure function of the options.
ImageSet generate_images(const GeneratedOptions& options);

struct ValidationOptions {
  /// Share of the set that becomes the validation part, in [0, 1).
  double fraction = 0.1;
  /// Samples of the validation part; used in place of the fraction where not negative.
  std::int64_t count = -1;
  std::uint64_t seed = 0;
};

struct IndexSplit {
  std::vector<std::int64_t> train;       // ascending
  std::vector<std::int64_t> validation;  // ascending
};

/// Draws a validation part in which each class has its share to within one sample. Throws Error
/// where nothing would be left to train on.
IndexSplit split_validation(const ImageSet& set, const ValidationOptions& options);

/// 0, 1, … count - 1.
std::vector<std::int64_t> all_indices(const ImageSet& set);

/// Copies the named images, in that order. Throws Error for an index out of range.
ImageSet subset(const ImageSet& set, std::span<const std::int64_t> indices);

struct ChannelStatistics {
  std::vector<float> mean;  // (channels)
  std::vector<float> std;   // (channels); 1 where a channel is constant, so that it can divide
};

/// Mean and standard deviation of pixel / 255 over the named images, from exact integer sums.
ChannelStatistics channel_statistics(const ImageSet& set, std::span<const std::int64_t> indices);

}  // namespace nf::nn
