// Auxiliary networks by a rule of one's own, known by its name to plans, files and experiments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "neuroflux/experiment.h"
#include "neuroflux/plan_file.h"
#include "neuroflux/saved_net.h"
#include "nn/layers.h"
#include "nn/stage_batch.h"
#include "tests/neuroflux/local_training.h"

namespace nf {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr const char* kOwnName = "own-narrow";

/// A 1x1 convolution and a linear layer.
class OwnNarrowRule : public AuxiliaryRule {
 public:
  std::string name() const override { return kOwnName; }
  std::vector<std::int64_t> widths(const Shape&) const override { return {6, 12}; }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    auto net = std::make_unique<nn::Sequential>();
    net->emplace<nn::ConvBnAct>(prefix + ".conv", prefix + ".bn", features[3], width, 1);
    net->emplace<nn::AdaptiveAvgPool>(1, 1);
    net->emplace<nn::Flatten>();
    net->emplace<nn::Linear>(prefix + ".linear", width, classes);
    return net;
  }
};

class OwnRule : public LocalTraining {
 protected:
  void SetUp() override {
    LocalTraining::SetUp();
    std::filesystem::create_directories(folder_);
    // Once in a process, however many tests it runs.
    static const bool registered = [] {
      register_auxiliary_rule(kOwnName, [] { return std::make_shared<OwnNarrowRule>(); });
      return true;
    }();
    ASSERT_TRUE(registered);
    rule_ = make_auxiliary_rule(kOwnName);
    training_.epochs = 1;
  }

  std::filesystem::path file() const { return folder_ / "saved"; }
};

std::vector<float> outputs_of(nn::Module& net, const nn::StateDict& weights, const Shape& sample) {
  constexpr std::int64_t kImages = 3;
  std::vector<float> images(static_cast<std::size_t>(kImages * sample.numel()));
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(i % 13) * 0.1F;
  const ContextPtr context = Context::create({.budget = 64 << 20, .threads = 1});
  net.materialize(context, weights);
  const Tensor x =
      nn::stage_images(context, {.size = kImages, .sample = sample, .images = images.data()});
  std::vector<float> values = net.forward({}, x).to_host<float>();
  net.release();
  return values;
}

TEST_F(OwnRule, ASavedExitGivesTheSameOutputsWhenItIsLoaded) {
  const LocalResult result = train();
  const nn::TrainingData images = data();
  const Plan plan = make(images);
  EXPECT_EQ(plan.auxiliary_rule, kOwnName);
  const LocalNet net(*net_, *rule_, plan);
  describe_exit(*net_, plan, 1, images.transform())
      .write(file(), exit_weights(net, result.weights, 1));
  LoadedNet loaded(file());
  EXPECT_EQ(loaded.description().auxiliary_rule, kOwnName);
  EXPECT_EQ(loaded.description().exit_unit, 2);
  ExitNet exit(net, 1);
  EXPECT_EQ(loaded.module().parameter_count(), exit.parameter_count());
  const std::vector<float> outputs = outputs_of(exit, result.weights, images.sample_shape());
  EXPECT_EQ(outputs.size(), 3U * 4U);
  EXPECT_EQ(outputs_of(loaded.module(), loaded.weights(), images.sample_shape()), outputs);
}

TEST_F(OwnRule, FilesOfARuleThatIsNotRegisteredNameIt) {
  const nn::TrainingData images = data();
  const Plan plan = make(images);
  SavedNet saved = describe_exit(*net_, plan, 1, images.transform());
  saved.auxiliary_rule = "nobodys";
  nn::StateDict weights;
  weights["weight"] = {Shape{1}, {0.0F}};
  saved.write(file(), weights);
  EXPECT_THAT([&] { const LoadedNet loaded(file()); },
              ThrowsMessage<DataError>(
                  AllOf(HasSubstr(file().string()), HasSubstr("'nobodys' is not known"))));
  nlohmann::json document = to_json(plan);
  std::ofstream(file()) << document.dump();
  EXPECT_EQ(read_plan_rule(file()), kOwnName);
  document["auxiliary_rule"] = "own-narow";
  std::ofstream(file()) << document.dump();
  EXPECT_THAT([&] { read_plan_rule(file()); },
              ThrowsMessage<DataError>(AllOf(
                  HasSubstr(file().string()),
                  HasSubstr("\"own-narow\", which is not known; did you mean \"own-narrow\"?"))));
}

TEST_F(OwnRule, ExperimentsKnowItByItsName) {
  EXPECT_THAT(auxiliary_rule_names(), testing::Contains(kOwnName));
  ExperimentOptions options;
  options.methods = {"neuroflux"};
  options.width = 0.125;
  options.auxiliary = kOwnName;
  const ExperimentPlan plan = plan_experiment(options, DataShape{});
  EXPECT_EQ(plan.methods.front()->local_plan()->auxiliary_rule, kOwnName);
}

TEST_F(OwnRule, RegistersUnderOneNewNameThatIsItsOwn) {
  const auto refusal_of = [](const std::string& name, AuxiliaryRuleFactory factory) {
    try {
      register_auxiliary_rule(name, std::move(factory));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("was taken");
  };
  const std::vector<std::string> before = auxiliary_rule_names();
  const auto own = [] { return std::make_shared<OwnNarrowRule>(); };
  // A rule may be made of one that is known.
  EXPECT_THAT(refusal_of("pooled", [] { return make_auxiliary_rule("pooled"); }),
              HasSubstr("'pooled' is known already"));
  EXPECT_THAT(refusal_of(kOwnName, own), HasSubstr("'own-narrow' is known already"));
  EXPECT_THAT(refusal_of("other", own), HasSubstr("'other' names itself 'own-narrow'"));
  EXPECT_THAT(refusal_of("", own), HasSubstr("is empty"));
  EXPECT_THAT(refusal_of("none", nullptr), HasSubstr("'none' makes no rule"));
  EXPECT_EQ(auxiliary_rule_names(), before);
}

}  // namespace
}  // namespace nf
