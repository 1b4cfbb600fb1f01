// From stored pixels to what a network reads: padded, cropped, flipped, normalised.
#pragma once

#include "engine/tensor.h"

namespace nf {

/// Writes out (N, OH, OW, C) f32: of each image of pixels (N, H, W, C) u8 its window, each byte
/// replaced by its value in tables (C, or 1 for all channels, by 256) f32. windows (N, 3) i32 are
/// ImageWindows; beyond the image all pixels are raw zeros, and go through the tables too.
/// Throws Error for shapes and types that don't fit, and for images of 2^31 elements or more.
void prepare_images(const Tensor& pixels, const Tensor& windows, const Tensor& tables, Tensor& out);

}  // namespace nf
