// A folder of its own for each test, and a cache in it whose every value is known.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "kernels/half.h"
#include "neuroflux/activation_cache.h"

namespace nf {

class CacheTest : public ::testing::Test {
 protected:
  // 12 values: 24 bytes in 16 bits, 48 in 32.
  static inline const Shape kSample{2, 3, 2};

  static float value_of(std::int64_t sample, std::int64_t i) {
    // A third is inexact in every format; the powers reach subnormals and overflow of f16.
    return std::ldexp(static_cast<float>(sample + i) / 3.0F,
                      static_cast<int>((sample + i) % 41) - 20);
  }

  static std::int32_t label_of(std::int64_t sample) {
    return static_cast<std::int32_t>(sample) - 3;
  }

  static float stored(float value, DType dtype) {
    if (dtype == DType::bf16) return bf16_to_float(float_to_bf16(value));
    return dtype == DType::f16 ? f16_to_float(float_to_f16(value)) : value;
  }

  static void fill(std::int64_t first, std::int64_t n, std::int64_t values, float* out) {
    for (std::int64_t s = first; s < first + n; ++s)
      for (std::int64_t i = 0; i < values; ++i) *out++ = value_of(s, i);
  }

  static std::string message_of(const auto& action) {
    try {
      action();
    } catch (const DataError& error) {
      return std::string("DataError: ") + error.what();
    } catch (const Error& error) {
      return std::string("Error: ") + error.what();
    }
    return "no error";
  }

  void SetUp() override {
    std::string pattern =
        (std::filesystem::path(::testing::TempDir()) / "activation_cache_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    folder_ = root_ / "cache";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  static CacheSpec spec(std::int64_t count, std::int64_t chunk_bytes = 96,
                        DType dtype = DType::bf16) {
    return {.name = "block1",
            .count = count,
            .sample_shape = kSample,
            .dtype = dtype,
            .chunk_bytes = chunk_bytes,
            .provenance = 42};
  }

  /// Appends `step` samples at a time.
  void write(const CacheSpec& spec, std::int64_t step = 7, CacheWriteOptions options = {}) const {
    write_to(CacheWriter(folder_, spec, std::move(options)), spec, step);
  }

  static void write_to(CacheWriter&& writer, const CacheSpec& spec, std::int64_t step = 7) {
    const std::int64_t values = spec.sample_shape.numel();
    for (std::int64_t first = 0; first < spec.count; first += step) {
      const std::int64_t n = std::min(step, spec.count - first);
      std::vector<float> samples(static_cast<std::size_t>(n * values));
      fill(first, n, values, samples.data());
      std::vector<std::int32_t> labels;
      for (std::int64_t s = first; s < first + n; ++s) labels.push_back(label_of(s));
      writer.append(samples.data(), labels.data(), n);
    }
    writer.close();
  }

  /// Reads an epoch, checks every value and the sizes of the batches; gives the samples in order.
  static std::vector<std::int64_t> read(CacheReader& reader, std::int64_t batch,
                                        std::int64_t epoch) {
    std::vector<std::int64_t> order;
    reader.start(batch, epoch);
    const std::int64_t values = reader.sample_shape().numel();
    while (const nn::Batch* got = reader.next()) {
      const std::int64_t rest = reader.count() - static_cast<std::int64_t>(order.size());
      EXPECT_EQ(got->size, std::min(batch, rest));
      EXPECT_EQ(static_cast<std::int64_t>(got->images.size()), got->size * values);
      EXPECT_EQ(static_cast<std::int64_t>(got->labels.size()), got->size);
      for (std::int64_t k = 0; k < got->size; ++k) {
        const std::int64_t sample = got->labels[static_cast<std::size_t>(k)] + 3;
        order.push_back(sample);
        for (std::int64_t i = 0; i < values; ++i)
          EXPECT_EQ(got->images[static_cast<std::size_t>(k * values + i)],
                    stored(value_of(sample, i), reader.spec().dtype))
              << "sample " << sample << " value " << i;
      }
    }
    EXPECT_EQ(reader.next(), nullptr);
    return order;
  }

  CacheReader reader(CacheReadOptions options = {}) const { return {folder_, "block1", options}; }

  std::filesystem::path file(const char* extension) const {
    return folder_ / (std::string("block1") + extension);
  }

  void flip(const std::filesystem::path& path, std::int64_t offset) const {
    std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(offset);
    const int byte = stream.get();
    stream.seekp(offset);
    stream.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(stream.good());
  }

  std::filesystem::path root_;
  std::filesystem::path folder_;
};

}  // namespace nf
