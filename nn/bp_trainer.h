// End-to-end backpropagation: the whole net on the device, one loss.
#pragma once

#include "nn/whole_net_trainer.h"

namespace nf::nn {

class BpTrainer : public WholeNetTrainer {
 public:
  using WholeNetTrainer::WholeNetTrainer;

  StepResult train(const float* images, const std::int32_t* labels, std::int64_t size,
                   const StepOptions& options) override;
};

}  // namespace nf::nn
