#include "nn/stage_batch.h"

#include "engine/memory/recycled.h"
#include "engine/ops/prepare_images.h"

namespace nf::nn {
namespace {

Shape batch_of(std::int64_t size, const Shape& sample) {
  RecycledVector<std::int64_t> extents{size};
  for (const std::int64_t extent : sample.extents()) extents.push_back(extent);
  return Shape(extents);
}

Tensor upload(const ContextPtr& context, const Shape& shape, DType dtype, const void* values) {
  Tensor tensor = Tensor::empty(context, shape, dtype, Category::input);
  tensor.copy_from_host(values);
  return tensor;
}

}  // namespace

Tensor stage_images(const ContextPtr& context, const HostBatch& batch) {
  const OpScope op("stage_batch");
  const Shape shape = batch_of(batch.size, batch.sample);
  if (!batch.format) return upload(context, shape, DType::f32, batch.images);
  // Before what it is made of: no hole is left in front of it.
  Tensor images = Tensor::empty(context, shape, DType::f32, Category::input);
  const Tensor pixels = upload(context, batch_of(batch.size, batch.format->stored), DType::u8,
                               batch.pixels),
               windows = upload(context, {batch.size, 3}, DType::i32, batch.windows),
               tables = upload(context, {batch.format->tables, 256}, DType::f32, batch.tables);
  prepare_images(pixels, windows, tables, images);
  return images;
}

DeviceBatch stage_batch(const ContextPtr& context, const HostBatch& batch) {
  const OpScope op("stage_batch");
  Tensor images = stage_images(context, batch);
  return {std::move(images), upload(context, {batch.size}, DType::i32, batch.labels)};
}

SampleForm sample_form(const Backend& backend) {
  return backend.prepares_images() ? SampleForm::pixels : SampleForm::values;
}

}  // namespace nf::nn
