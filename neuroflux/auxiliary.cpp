#include "neuroflux/auxiliary.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "engine/text.h"
#include "nn/layers.h"

namespace nf {
namespace {

class ClassicRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "classic"; }
  std::vector<std::int64_t> widths(const Shape&) const override { return {256}; }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_conv_classifier(prefix, features, classes, width, 0);
  }
};

class ProportionalRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "proportional"; }
  std::vector<std::int64_t> widths(const Shape& features) const override {
    return {std::clamp<std::int64_t>(features[-1] / 2, 8, 256)};
  }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_conv_classifier(prefix, features, classes, width, 0);
  }
};

std::vector<std::int64_t> widths_up_to(std::int64_t channels) {
  std::vector<std::int64_t> widths;
  for (const std::int64_t width : {16, 32, 64, 128, 256})
    if (width == 16 || width <= channels) widths.push_back(width);
  return widths;
}

class AdaptiveRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "adaptive"; }
  std::vector<std::int64_t> widths(const Shape& features) const override {
    return widths_up_to(features[-1]);
  }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_conv_classifier(prefix, features, classes, width, 8);
  }
};

class PooledRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "pooled"; }
  std::vector<std::int64_t> widths(const Shape& features) const override {
    return widths_up_to(features[-1]);
  }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_pooled_classifier(prefix, features, classes, width);
  }
};

class DeepRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "deep"; }
  std::vector<std::int64_t> widths(const Shape& features) const override {
    return widths_up_to(features[-1]);
  }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_deep_classifier(prefix, features, classes, width);
  }
};

template <typename Rule>
std::shared_ptr<const AuxiliaryRule> make_rule() {
  return std::make_shared<Rule>();
}

struct NamedRule {
  std::string name;
  AuxiliaryRuleFactory make;
};

// The project's own, then those that programs bring.
struct RuleRegistry {
  std::mutex mutex;
  std::vector<NamedRule> rules{{"adaptive", &make_rule<AdaptiveRule>},
                               {"proportional", &make_rule<ProportionalRule>},
                               {"classic", &make_rule<ClassicRule>},
                               {"pooled", &make_rule<PooledRule>},
                               {"deep", &make_rule<DeepRule>}};
};

// Made when it is first asked for: programs may register before main.
RuleRegistry& rule_registry() {
  static RuleRegistry all;
  return all;
}

}  // namespace

std::unique_ptr<nn::Module> make_conv_classifier(const std::string& prefix, const Shape& features,
                                                 std::int64_t classes, std::int64_t width,
                                                 std::int64_t pool_to) {
  NF_CHECK(features.rank() == 4, "auxiliary: features must be (N, H, W, C), got {}",
           features.str());
  const std::int64_t height = features[1], columns = features[2], channels = features[3];
  auto net = std::make_unique<nn::Sequential>();
  if (pool_to > 0 && (height > pool_to || columns > pool_to))
    net->add(std::make_unique<nn::AdaptiveAvgPool>(std::min(height, pool_to),
                                                   std::min(columns, pool_to)));
  net->add(std::make_unique<nn::ConvBnAct>(prefix + ".conv", prefix + ".bn", channels, width, 3));
  const std::int64_t out_h = std::min<std::int64_t>(2, height);
  const std::int64_t out_w = std::min<std::int64_t>(2, columns);
  net->add(std::make_unique<nn::AdaptiveAvgPool>(out_h, out_w));
  net->add(std::make_unique<nn::Flatten>());
  net->add(std::make_unique<nn::Linear>(prefix + ".linear", out_h * out_w * width, classes));
  return net;
}

std::unique_ptr<nn::Module> make_pooled_classifier(const std::string& prefix, const Shape& features,
                                                   std::int64_t classes, std::int64_t width) {
  NF_CHECK(features.rank() == 4, "auxiliary: features must be (N, H, W, C), got {}",
           features.str());
  constexpr std::int64_t kMap = 4, kReduced = 2;
  const std::int64_t height = std::min(features[1], kMap), columns = std::min(features[2], kMap);
  // What the perceptron sees is square, so that one convolution without padding can be its layer.
  const std::int64_t reduced = std::min({height, columns, kReduced});
  auto net = std::make_unique<nn::Sequential>();
  if (features[1] > height || features[2] > columns)
    net->emplace<nn::AdaptiveAvgPool>(height, columns);
  net->emplace<nn::ConvBnAct>(prefix + ".conv", prefix + ".bn", features[3], width, 1);
  net->emplace<nn::ConvBnAct>(prefix + ".depthwise", prefix + ".depthwise_bn", width, width, 3,
                              nn::ConvBnOptions{.groups = width});
  net->emplace<nn::AdaptiveAvgPool>(reduced, reduced);
  net->emplace<nn::ConvBnAct>(prefix + ".hidden", prefix + ".hidden_bn", width, width, reduced,
                              nn::ConvBnOptions{.padding = 0});
  net->emplace<nn::Flatten>();
  net->emplace<nn::Linear>(prefix + ".linear", width, classes);
  return net;
}

std::unique_ptr<nn::Module> make_deep_classifier(const std::string& prefix, const Shape& features,
                                                 std::int64_t classes, std::int64_t width) {
  NF_CHECK(features.rank() == 4, "auxiliary: features must be (N, H, W, C), got {}",
           features.str());
  constexpr std::int64_t kLargest = 16, kMap = 4, kReduced = 2;
  constexpr std::int64_t kMostFilters = 512;  // as in the last layers of nets
  std::int64_t height = std::min(features[1], kLargest), columns = std::min(features[2], kLargest);
  auto net = std::make_unique<nn::Sequential>();
  if (features[1] > height || features[2] > columns)
    net->emplace<nn::AdaptiveAvgPool>(height, columns);
  std::int64_t channels = features[3], filters = width;
  int count = 0;
  const auto convolve = [&](std::int64_t stride) {
    ++count;
    net->emplace<nn::ConvBnAct>(fmt::format("{}.conv{}", prefix, count),
                                fmt::format("{}.bn{}", prefix, count), channels, filters, 3,
                                nn::ConvBnOptions{.stride = stride});
    channels = filters;
  };
  while (height > kMap || columns > kMap) {
    filters = std::max(width, std::min(2 * filters, kMostFilters));
    convolve(2);
    height = (height - 1) / 2 + 1;
    columns = (columns - 1) / 2 + 1;
  }
  convolve(1);
  const std::int64_t out_h = std::min(height, kReduced), out_w = std::min(columns, kReduced);
  net->emplace<nn::AdaptiveAvgPool>(out_h, out_w);
  net->emplace<nn::Flatten>();
  net->emplace<nn::Linear>(prefix + ".linear", out_h * out_w * filters, classes);
  return net;
}

std::vector<std::string> auxiliary_rule_names() {
  RuleRegistry& registry = rule_registry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  std::vector<std::string> names;
  for (const NamedRule& rule : registry.rules) names.push_back(rule.name);
  return names;
}

std::shared_ptr<const AuxiliaryRule> make_auxiliary_rule(std::string_view name) {
  AuxiliaryRuleFactory make;
  {
    RuleRegistry& registry = rule_registry();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    for (const NamedRule& rule : registry.rules)
      if (rule.name == name) make = rule.make;
  }
  // Not under the lock: a rule may ask for another that it is made of.
  if (make) return make();
  fail("auxiliary rule: '{}' is not known; did you mean '{}'? One of your own must be registered",
       name, nearest_name(name, auxiliary_rule_names()));
}

void register_auxiliary_rule(const std::string& name, AuxiliaryRuleFactory factory) {
  NF_CHECK(!name.empty(), "auxiliary rule: the name to register is empty");
  const std::shared_ptr<const AuxiliaryRule> made = factory ? factory() : nullptr;
  NF_CHECK(made != nullptr, "auxiliary rule: what is registered as '{}' makes no rule", name);
  // A plan and a saved exit tell the rule by its own name.
  NF_CHECK(made->name() == name, "auxiliary rule: what is registered as '{}' names itself '{}'",
           name, made->name());
  RuleRegistry& registry = rule_registry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  for (const NamedRule& rule : registry.rules)
    NF_CHECK(rule.name != name, "auxiliary rule: '{}' is known already; register another name",
             name);
  registry.rules.push_back({name, std::move(factory)});
}

}  // namespace nf
