// One table of cases for each operator: sizes only, so that they drive any backend. Finite
// differences are left out (`gradcheck`) where a case is there for its size.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/shape.h"

namespace nf::test {

struct Conv2dCase {
  std::string name;
  std::int64_t n = 1, h = 1, w = 1, c = 1;  // input
  std::int64_t o = 1, kh = 1, kw = 1;       // filters
  std::int64_t stride = 1, padding = 0, groups = 1;
  bool bias = false;
  bool gradcheck = true;

  std::int64_t out_h() const { return (h + 2 * padding - kh) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * padding - kw) / stride + 1; }
};

struct LinearCase {
  std::string name;
  std::int64_t n = 1, i = 1, o = 1;
  bool bias = true;
  bool gradcheck = true;
};

struct BatchNormCase {
  std::string name;
  Shape x;
  Activation activation = Activation::none;
  bool residual = false;
  double offset = 0;  ///< mean of the input, whose spread is about 1: what loses digits
  bool gradcheck = true;
};

struct Pool2dCase {
  std::string name;
  std::int64_t n = 1, h = 1, w = 1, c = 1;
  std::int64_t kernel = 2, stride = 2, padding = 0;
  bool gradcheck = true;

  std::int64_t out_h() const { return (h + 2 * padding - kernel) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * padding - kernel) / stride + 1; }
};

struct AdaptivePoolCase {
  std::string name;
  std::int64_t n = 1, h = 1, w = 1, c = 1;
  std::int64_t out_h = 1, out_w = 1;
  bool gradcheck = true;
};

/// Operators that treat every element alike.
struct ElementwiseCase {
  std::string name;
  Shape x;
  bool gradcheck = true;
};

/// Over all elements, and by row.
struct ReduceCase {
  std::string name;
  Shape x;
  double offset = 0;  ///< mean of the input, whose elements lie within 1 of it
  bool gradcheck = true;
};

struct DropoutCase {
  std::string name;
  Shape x;
  double p = 0.5;
  std::uint64_t key = 1;
};

struct ReshapeCase {
  std::string name;
  Shape from, to;
};

struct CrossEntropyCase {
  std::string name;
  std::int64_t n = 1, c = 2;
  double smoothing = 0;
  double spread = 4;  ///< logits lie in [-spread, spread]
  bool gradcheck = true;
};

const std::vector<Conv2dCase>& conv2d_cases();
const std::vector<LinearCase>& linear_cases();
const std::vector<BatchNormCase>& batch_norm_cases();
/// For maximum and average alike.
const std::vector<Pool2dCase>& pool2d_cases();
const std::vector<AdaptivePoolCase>& adaptive_pool_cases();
const std::vector<ElementwiseCase>& elementwise_cases();
const std::vector<ReduceCase>& reduce_cases();
const std::vector<DropoutCase>& dropout_cases();
const std::vector<ReshapeCase>& reshape_cases();
const std::vector<CrossEntropyCase>& cross_entropy_cases();

}  // namespace nf::test
