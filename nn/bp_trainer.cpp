#include "nn/bp_trainer.h"

namespace nf::nn {

StepResult BpTrainer::train(const float* images, const std::int32_t* labels, std::int64_t size,
                            const StepOptions& options) {
  const UnitScope unit(model().name());
  auto [x, y] = stage(images, labels, size);
  return train_step(trainable(), std::move(x), y, options);
}

}  // namespace nf::nn
