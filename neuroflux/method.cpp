#include "neuroflux/method.h"

#include <algorithm>
#include <array>

#include "engine/text.h"
#include "engine/timer.h"

namespace nf {
namespace {

struct Entry {
  const char* name;
  std::unique_ptr<Method> (*plan)(const MethodInput&);
};
constexpr std::array kMethods{Entry{"bp", plan_bp}, Entry{"bp-accumulate", plan_bp_accumulate},
                              Entry{"bp-checkpoint", plan_bp_checkpoint},
                              Entry{"local", plan_local}, Entry{"neuroflux", plan_neuroflux}};

InferenceSpeed measure(const MethodRun& run, nn::Module& net, double least_seconds) {
  return measure_inference(net, run.data.sample_shape(), run.device,
                           std::min(run.inference_batch, run.data.train_count()), least_seconds);
}

}  // namespace

const std::vector<std::string>& method_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Entry& entry : kMethods) all.emplace_back(entry.name);
    return all;
  }();
  return names;
}

std::unique_ptr<Method> plan_method(const std::string& name, const MethodInput& input) {
  for (const Entry& entry : kMethods)
    if (name == entry.name) return entry.plan(input);
  fail("methods: '{}' is not known; did you mean '{}'?", name, nearest_name(name, method_names()));
}

void measure_speed(const MethodRun& run, nn::Module& net, MethodSummary& summary) {
  const InferenceSpeed speed = measure(run, net, 0.5);
  if (speed.batch == 0) return;
  summary.inference_images_per_second = speed.images_per_second;
  summary.inference_batch = speed.batch;
}

std::optional<double> measure_exit_speed(const MethodRun& run, nn::Module& exit) {
  const InferenceSpeed speed = measure(run, exit, 0.1);
  if (speed.batch == 0) return {};
  return speed.images_per_second;
}

}  // namespace nf
