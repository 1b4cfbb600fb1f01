// Brings its own layer, net, auxiliary rule and data; plans their training under a memory budget,
// trains, and checks that the plan kept its word. Registers the rule, so that an exit of a net from
// the model zoo can be saved with it and loaded again.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "neuroflux/neuroflux.h"

namespace {

using namespace nf;

/// A 3x3 and a 1x1 convolution side by side, added before the ReLU.
class TwoPaths : public nn::Module {
 public:
  TwoPaths(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t stride)
      : narrow_(name + ".narrow", name + ".narrow_bn", in, out, 1,
                {.stride = stride, .activation = Activation::none}),
        wide_(name + ".wide", name + ".wide_bn", in, out, 3, {.stride = stride}) {}

  Tensor forward(const nn::Pass& pass, const Tensor& x) override {
    return wide_.forward(pass, x, narrow_.forward(pass, x));
  }
  Shape output_shape(const Shape& x) const override { return wide_.output_shape(x); }
  std::int64_t flops(const Shape& x) const override { return narrow_.flops(x) + wide_.flops(x); }
  void visit(const std::function<void(nn::Parameter&)>& visitor) override {
    narrow_.visit(visitor);
    wide_.visit(visitor);
  }

 private:
  nn::ConvBnAct narrow_, wide_;
};

/// Auxiliary networks of 1x1 convolutions, as wide as the budget allows.
class PointwiseRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "pointwise"; }
  std::vector<std::int64_t> widths(const Shape&) const override { return {8, 16, 32}; }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    auto net = std::make_unique<nn::Sequential>();
    net->emplace<nn::ConvBnAct>(prefix + ".conv", prefix + ".bn", features[3], width, 1);
    net->add(nn::make_classifier(prefix + ".fc", width, classes));
    return net;
  }
};

std::unique_ptr<nn::Model> make_net(const nn::ModelOptions& options) {
  std::vector<std::unique_ptr<nn::Unit>> units;
  units.push_back(std::make_unique<nn::Unit>(
      "stem", 16,
      std::make_unique<nn::ConvBnAct>("stem.conv", "stem.bn", options.input[2], 16, 3)));
  std::int64_t in = 16;
  for (const std::int64_t out : {16, 32, 64}) {
    const std::string name = fmt::format("paths{}", units.size());
    units.push_back(std::make_unique<nn::Unit>(
        name, out, std::make_unique<TwoPaths>(name, in, out, out == in ? 1 : 2)));
    in = out;
  }
  return std::make_unique<nn::Model>("two_paths", options, std::move(units),
                                     nn::make_classifier("fc", in, options.classes));
}

PlanOptions plan_options(const nn::TrainingData& data, const LocalTrainingOptions& training,
                         const ContextOptions& device) {
  return {.budget = device.budget,
          .batch = 64,
          .train_count = data.train_count(),
          .validation_count = data.validation_count(),
          .test_count = data.test_count(),
          .cache_dtype = training.cache_dtype,
          .optimizer = training.optimizer};
}

std::vector<float> outputs_of(nn::Module& net, const nn::StateDict& weights, const Shape& sample,
                              const ContextOptions& device) {
  const ContextPtr context = Context::create(device);
  const std::vector<float> image(static_cast<std::size_t>(sample.numel()), 0.5F);
  net.materialize(context, weights);
  const Tensor x = nn::stage_images(context, {.size = 1, .sample = sample, .images = image.data()});
  std::vector<float> values = net.forward({}, x).to_host<float>();
  net.release();
  return values;
}

/// Trains by a rule that is found by its name, saves the first exit and loads it.
void save_and_load(const nn::TrainingData& data, LocalTrainingOptions training,
                   const ContextOptions& device, const std::string& rule_name) {
  training.epochs = 1;
  const auto model = nn::make_model(
      "vgg11", {.input = data.sample_shape(), .classes = data.classes(), .width = 0.125});
  const auto rule = make_auxiliary_rule(rule_name);
  const Plan plan = make_plan(*model, *rule, plan_options(data, training, device), device);
  NF_CHECK(plan.fits, "{} needs at least {}", model->name(), format_bytes(plan.minimum_budget));
  const LocalNet net(*model, *rule, plan);
  const LocalResult result = train_locally(Context::create(device), net, plan, data, training);

  const std::filesystem::path path = std::filesystem::current_path() / "exit.safetensors";
  describe_exit(*model, plan, 0, data.transform())
      .write(path, exit_weights(net, result.weights, 0));
  LoadedNet loaded(path);
  ExitNet exit(net, 0);
  NF_CHECK(outputs_of(loaded.module(), loaded.weights(), data.sample_shape(), device) ==
               outputs_of(exit, result.weights, data.sample_shape(), device),
           "the loaded exit gives other outputs");
  fmt::print("saved and loaded: exit 1 of {}, rule {}, {} parameters\n", model->name(),
             loaded.description().auxiliary_rule, loaded.module().parameter_count());
}

int run() {
  constexpr std::int64_t kSide = 16, kClasses = 8;
  nn::GeneratedOptions images{.count = 1200, .height = kSide, .width = kSide, .classes = kClasses};
  nn::ImageSet train = nn::generate_images(images);
  images.count = 400;
  images.stream = 1;
  const nn::TrainingData data(std::move(train), nn::generate_images(images), {.pad_to = kSide});

  LocalTrainingOptions training;
  training.epochs = 3;
  training.cache_folder = std::filesystem::current_path() / "cache";
  training.stop_when_saturated = false;

  const auto model = make_net({.input = data.sample_shape(), .classes = data.classes()});
  const PointwiseRule rule;
  const ContextOptions device{.budget = parse_bytes("4MiB")};
  const Plan plan = make_plan(*model, rule, plan_options(data, training, device), device);
  NF_CHECK(plan.fits, "{} needs at least {}", model->name(), format_bytes(plan.minimum_budget));

  const LocalNet net(*model, rule, plan);
  const LocalResult result = train_locally(Context::create(device), net, plan, data, training);

  bool exact = result.measured_peak_bytes == plan.predicted_peak_bytes;
  for (const BlockResult& block : result.blocks) {
    fmt::print("units {} to {}, batch {}: predicted {} bytes, measured {}\n",
               block.plan.first_unit + 1, block.plan.last_unit + 1, block.plan.batch,
               block.plan.predicted_peak_bytes, block.measured_peak_bytes);
    exact = exact && block.measured_peak_bytes == block.plan.predicted_peak_bytes;
  }
  for (const ExitResult& exit : result.exits)
    fmt::print("exit {}: {} parameters, validation accuracy {:.3f}\n", exit.unit + 1,
               exit.parameters, exit.validation_accuracy);
  const ExitResult& chosen = result.exits[result.chosen];
  fmt::print("chosen: exit {}, {} of {} parameters, test accuracy {:.3f}\n", chosen.unit + 1,
             chosen.parameters, plan.full_parameters, result.test_accuracy);

  NF_CHECK(exact, "a measured peak is not the predicted one");
  NF_CHECK(result.measured_peak_bytes <= device.budget, "the budget was exceeded");
  NF_CHECK(result.test_accuracy > 4.0 / kClasses, "accuracy {:.3f} is close to chance",
           result.test_accuracy);

  register_auxiliary_rule(rule.name(), [] { return std::make_shared<PointwiseRule>(); });
  save_and_load(data, training, device, rule.name());
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "embed: {}\n", error.what());
    return 1;
  }
}
