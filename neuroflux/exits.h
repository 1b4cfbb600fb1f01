// Early exits: which one to deliver, and how fast it infers.
#pragma once

#include <cstdint>
#include <vector>

#include "neuroflux/local_net.h"
#include "nn/state_dict.h"

namespace nf {

struct ExitResult {
  std::int64_t unit = 0;  ///< counted from 0
  std::int64_t parameters = 0;
  std::int64_t flops = 0;  ///< forward, one image
  double validation_accuracy = 0.0;
};

/// Index into `exits` of the one with the fewest parameters among those whose validation accuracy
/// is at least `accuracy` (a fraction). Where that is 0, or no exit has it, among those at most
/// `tolerance` below the best. Throws Error when there are none.
std::size_t choose_exit(const std::vector<ExitResult>& exits, double tolerance,
                        double accuracy = 0.0);

/// Whether one of the exits has that validation accuracy (a fraction); false where it is 0.
bool has_accuracy(const std::vector<ExitResult>& exits, double accuracy);

/// Whether training further units is pointless: none of the last `patience` exits is more than
/// `improvement` (a fraction) better than the best one before them.
bool saturated(const std::vector<ExitResult>& exits, std::int64_t patience, double improvement);

/// Units 0..unit and their classifier as one module; nothing is owned.
class ExitNet : public nn::Module {
 public:
  ExitNet(const LocalNet& net, std::int64_t unit);
  Tensor forward(const nn::Pass& pass, const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::int64_t flops(const Shape& x) const override;
  void visit(const std::function<void(nn::Parameter&)>& visitor) override;
  void fold_batch_norms() override;

 private:
  std::vector<nn::Module*> parts_;
};

struct InferenceSpeed {
  std::int64_t batch = 0;  ///< 0: not even one image fits the budget with all weights on the device
  double images_per_second = 0.0;
};

/// Median speed of whole forward passes with all weights on the device, batch norms folded, at the
/// largest batch up to `max_batch` that fits the target's budget: of at least five passes that
/// take `least_seconds` together. The values of inputs and weights don't matter.
InferenceSpeed measure_inference(nn::Module& net, const Shape& sample_shape,
                                 const ContextOptions& target, std::int64_t max_batch,
                                 double least_seconds = 0.5);

}  // namespace nf
