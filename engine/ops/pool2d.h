// Pooling over square windows, and to a given output size.
#pragma once

#include "engine/autograd/tape.h"

namespace nf {

struct Pool2dOptions {
  std::int64_t kernel = 2;
  std::int64_t stride = 0;  ///< 0: the kernel's size
  std::int64_t padding = 0;
  bool count_include_pad = true;  ///< average only
};

/// x (N, H, W, C). The backward keeps one byte per output (four for windows above 256 cells).
/// Throws Error when no window fits or the padding exceeds half of the kernel.
Tensor max_pool(Tape* tape, const Tensor& x, const Pool2dOptions& options = {});
Tensor avg_pool(Tape* tape, const Tensor& x, const Pool2dOptions& options = {});

/// (N, H, W, C) -> (N, out_h, out_w, C); cell i averages rows floor(i H / out_h) to
/// ceil((i + 1) H / out_h) - 1. Returns x itself when nothing changes.
Tensor adaptive_avg_pool(Tape* tape, const Tensor& x, std::int64_t out_h, std::int64_t out_w);

}  // namespace nf
