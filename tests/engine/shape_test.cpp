#include "engine/shape.h"

#include <limits>

#include "engine/device.h"
#include "engine/dtype.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST(Shape, ExtentsCountFromBothEnds) {
  const Shape shape{8, 32, 16, 3};
  EXPECT_EQ(shape.rank(), 4);
  EXPECT_EQ(shape[0], 8);
  EXPECT_EQ(shape[3], 3);
  EXPECT_EQ(shape[-1], 3);
  EXPECT_EQ(shape[-4], 8);
  EXPECT_EQ(error_text([&] { return shape[4]; }),
            "shape: dimension 4 of [8,32,16,3] does not exist");
  EXPECT_EQ(error_text([&] { return shape[-5]; }),
            "shape: dimension -5 of [8,32,16,3] does not exist");
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape({8, 32, 16, 3}).numel(), 12288);
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(Shape({4, 0, 3}).numel(), 0);
  EXPECT_EQ(Shape({kLargest}).numel(), kLargest);
  EXPECT_EQ(Shape({std::int64_t{1} << 31, (std::int64_t{1} << 32) - 1}).numel(),
            kLargest - ((std::int64_t{1} << 31) - 1));
}

TEST(Shape, RefusesMoreElementsThan64BitsCount) {
  EXPECT_EQ(error_text([] {
              return Shape({std::int64_t{1} << 32, std::int64_t{1} << 31}).numel();
            }),
            "shape: [4294967296,2147483648] has more elements than 64 bits count");
  EXPECT_THROW(Shape({kLargest, 2}).numel(), Error);
  EXPECT_THROW(Shape({3, kLargest, kLargest}).numel(), Error);
}

TEST(Shape, RefusesNegativeExtentsAndTooMany) {
  EXPECT_EQ(error_text([] {
              return Shape({3, -1});
            }),
            "shape: extents must not be negative, got [3,-1]");
  EXPECT_EQ(Shape({1, 2, 3, 4, 5, 6}).rank(), 6);
  EXPECT_EQ(error_text([] {
              return Shape({1, 2, 3, 4, 5, 6, 7});
            }),
            "shape: 7 dimensions, at most 6 are supported");
}

TEST(Shape, BatchAndSample) {
  const Shape shape{8, 4, 3};
  EXPECT_EQ(shape.with_batch(5), Shape({5, 4, 3}));
  EXPECT_EQ(shape.sample(), Shape({4, 3}));
  EXPECT_EQ(Shape({8}).sample(), Shape());
  EXPECT_THROW(Shape().sample(), Error);
  EXPECT_THROW(Shape().with_batch(1), Error);
}

TEST(Shape, EqualityComparesRankAndExtents) {
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_NE(Shape({2, 3}), Shape({3, 2}));
  EXPECT_NE(Shape({2}), Shape({2, 0}));
  EXPECT_NE(Shape(), Shape({0}));
}

TEST(Shape, Text) {
  EXPECT_EQ(Shape({8, 32, 32, 3}).str(), "[8,32,32,3]");
  EXPECT_EQ(Shape().str(), "[]");
}

TEST(DType, EveryNameParsesBack) {
  for (const DType dtype :
       {DType::f32, DType::f64, DType::f16, DType::bf16, DType::u8, DType::i32, DType::i64})
    EXPECT_EQ(parse_dtype(to_string(dtype)), dtype) << to_string(dtype);
  for (const char* wrong : {"", "F32", "float", "f322", "f3"})
    EXPECT_EQ(error_text([&] { parse_dtype(wrong); }),
              fmt::format("dtype: '{}' is not one of f32, f64, f16, bf16, u8, i32, i64", wrong));
}

TEST(DType, Sizes) {
  EXPECT_EQ(size_of(DType::f32), 4);
  EXPECT_EQ(size_of(DType::f64), 8);
  EXPECT_EQ(size_of(DType::f16), 2);
  EXPECT_EQ(size_of(DType::bf16), 2);
  EXPECT_EQ(size_of(DType::u8), 1);
  EXPECT_EQ(size_of(DType::i32), 4);
  EXPECT_EQ(size_of(DType::i64), 8);
}

TEST(Device, ParsesWhatItWrites) {
  EXPECT_EQ(parse_device("cpu"), Device{});
  EXPECT_EQ(parse_device("cpu:0"), Device{});
  EXPECT_EQ(parse_device("cuda:3"), (Device{DeviceKind::cuda, 3}));
  for (const char* name : {"cpu", "simt", "cuda", "cuda:1", "meta"})
    EXPECT_EQ(to_string(parse_device(name)), name);
  EXPECT_EQ(error_text([] { parse_device("gpu"); }),
            "device: 'gpu' is not known; known: cpu, simt, cuda, meta");
  for (const char* wrong : {"cpu:", "cpu:x", "cuda:0x", "cuda:-1", "cuda:99999999999"})
    EXPECT_EQ(error_text([&] { parse_device(wrong); }),
              fmt::format("device: '{}' must end in a device's number", wrong));
  for (const char* kind : {"cpu", "simt", "meta"})
    EXPECT_EQ(error_text([&] { parse_device(fmt::format("{}:1", kind)); }),
              fmt::format("device: '{}:1' has no device of that index, only {}:0", kind, kind));
}

TEST(Device, WhatIsNotThereSaysSoInOneLine) {
  for (const char* name : {"simt", "cuda", "cuda:7"}) {
    const std::string error =
        error_text([&] { Context::create({.device = parse_device(name), .budget = 1 << 20}); });
    if (error.empty()) continue;  // it is there
    EXPECT_EQ(error.find(parse_device(name).kind == DeviceKind::cuda ? "cuda" : "simt"), 0U)
        << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace nf::test
