// From host memory to a device: a batch as a network reads it.
#pragma once

#include "engine/tensor.h"
#include "nn/data/batch.h"

namespace nf::nn {

/// A batch on its device: images (N, H, W, C) f32 and labels (N) i32.
struct DeviceBatch {
  Tensor images;
  Tensor labels;
};

/// Copies a batch from the host; stored pixels become values on the device, to the bit those of
/// Transform::apply, and leave it. Throws Error where pixels can't become samples of that shape,
/// OutOfBudget.
DeviceBatch stage_batch(const ContextPtr& context, const HostBatch& batch);
/// Without labels.
Tensor stage_images(const ContextPtr& context, const HostBatch& batch);

/// The form in which samples should come for a device.
SampleForm sample_form(const Backend& backend);

}  // namespace nf::nn
