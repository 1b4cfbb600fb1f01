#include "nn/data/batch.h"

#include <utility>

#include "engine/error.h"

namespace nf::nn {
namespace {

void check_values(const Batch& batch, const Shape& sample) {
  NF_CHECK(batch.size >= 1 && std::cmp_equal(batch.labels.size(), batch.size) &&
               std::cmp_equal(batch.images.size(), batch.size * sample.numel()),
           "batch: {} samples of {} must come with {} values and {} labels, got {} and {}",
           batch.size, sample.str(), batch.size * sample.numel(), batch.size, batch.images.size(),
           batch.labels.size());
  NF_CHECK(batch.pixels.empty() && batch.windows.empty() && batch.tables.empty(),
           "batch: values must come without pixels, windows and tables, got {}, {} and {}",
           batch.pixels.size(), batch.windows.size(), batch.tables.size());
}

void check_pixels(const Batch& batch, const Shape& sample) {
  const auto& [stored, tables] = *batch.format;
  NF_CHECK(sample.rank() == 3 && stored.rank() == 3 && stored[2] == sample[2] &&
               (tables == 1 || tables == stored[2]),
           "batch: samples of {} can't be made of stored pixels {} and {} tables", sample.str(),
           stored.str(), tables);
  NF_CHECK(batch.size >= 1 && std::cmp_equal(batch.labels.size(), batch.size) &&
               std::cmp_equal(batch.windows.size(), batch.size) &&
               std::cmp_equal(batch.pixels.size(), batch.size * stored.numel()) &&
               std::cmp_equal(batch.tables.size(), tables * 256) && batch.images.empty(),
           "batch: {} samples stored as {} must come with {} pixels, {} windows, {} values in "
           "tables, {} labels and no values, got {}, {}, {}, {} and {}",
           batch.size, stored.str(), batch.size * stored.numel(), batch.size, tables * 256,
           batch.size, batch.pixels.size(), batch.windows.size(), batch.tables.size(),
           batch.labels.size(), batch.images.size());
}

}  // namespace

HostBatch host_batch(const Batch& batch, const Shape& sample) {
  HostBatch result{
      .size = batch.size, .sample = sample, .format = batch.format, .labels = batch.labels.data()};
  if (!batch.format) {
    check_values(batch, sample);
    result.images = batch.images.data();
    return result;
  }
  check_pixels(batch, sample);
  result.pixels = batch.pixels.data();
  result.windows = batch.windows.data();
  result.tables = batch.tables.data();
  return result;
}

HostBatch HostBatch::part(std::int64_t first, std::int64_t n) const {
  NF_CHECK(first >= 0 && n >= 1 && n <= size - first, "batch: {} samples from the {}th on, of {}",
           n, first, size);
  HostBatch result = *this;
  result.size = n;
  // A null pointer stays one.
  const auto move = [first](auto*& pointer, std::int64_t each) {
    if (pointer != nullptr) pointer += first * each;
  };
  move(result.images, sample.numel());
  if (format) move(result.pixels, format->stored.numel());
  move(result.windows, 1);
  move(result.labels, 1);
  return result;
}

}  // namespace nf::nn
