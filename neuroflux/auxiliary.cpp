#include "neuroflux/auxiliary.h"

#include <algorithm>

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

class AdaptiveRule : public AuxiliaryRule {
 public:
  std::string name() const override { return "adaptive"; }
  std::vector<std::int64_t> widths(const Shape& features) const override {
    std::vector<std::int64_t> widths;
    for (const std::int64_t width : {16, 32, 64, 128, 256})
      if (width == 16 || width <= features[-1]) widths.push_back(width);
    return widths;
  }
  std::unique_ptr<nn::Module> make(const std::string& prefix, const Shape& features,
                                   std::int64_t classes, std::int64_t width) const override {
    return make_conv_classifier(prefix, features, classes, width, 8);
  }
};

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

const std::vector<std::string>& auxiliary_rule_names() {
  static const std::vector<std::string> names{"adaptive", "proportional", "classic"};
  return names;
}

std::shared_ptr<const AuxiliaryRule> make_auxiliary_rule(std::string_view name) {
  if (name == "adaptive") return std::make_shared<AdaptiveRule>();
  if (name == "proportional") return std::make_shared<ProportionalRule>();
  if (name == "classic") return std::make_shared<ClassicRule>();
  fail("auxiliary rule: '{}' is not known; did you mean '{}'?", name,
       nearest_name(name, auxiliary_rule_names()));
}

}  // namespace nf
