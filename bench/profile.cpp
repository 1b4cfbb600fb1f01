// Tells where a training step's time goes; bench/README.md tells how to read it.
#include <fmt/format.h>

#include "bench/program.h"
#include "bench/step_flags.h"
#include "bench/step_profile.h"
#include "engine/memory/scope.h"
#include "neuroflux/local_net.h"
#include "nn/bp_trainer.h"
#include "nn/models/registry.h"

namespace nf::bench {
namespace {

struct Options : StepFlags {
  bool local = false;
  std::string rule = "pooled";
  std::int64_t auxiliary_width = 0;
};

bool parse(int argc, char** argv, Options& options) {
  CLI::App app{
      "Tells which operators and units take the time of a training step (SGD, momentum) of "
      "backpropagation, or of NeuroFlux's steps unit by unit, on random images."};
  options.add_to(app);
  CLI::Option* local = app.add_flag("--local", options.local,
                                    "each unit's step with the auxiliary network that trains it");
  app.add_option("--auxiliary", options.rule, "rule for auxiliary networks")
      ->check(CLI::IsMember(auxiliary_rule_names()))
      ->needs(local);
  app.add_option("--auxiliary-width", options.auxiliary_width,
                 "of all auxiliary networks, 0: the largest that the rule has for each unit")
      ->check(CLI::Range(0, 4096))
      ->needs(local);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return false;
  }
  options.resolve();
  options.device.graphs = false;  // a replayed step makes no calls that could be timed
  return true;
}

/// A context whose backend keeps times.
struct TimedContext {
  explicit TimedContext(const ContextOptions& options)
      : context(Context::create(options, [this](std::unique_ptr<Backend> device) {
          auto timed = std::make_unique<TimedBackend>(std::move(device));
          backend = timed.get();
          return timed;
        })) {}

  TimedBackend* backend = nullptr;
  ContextPtr context;
};

/// The fields that both kinds of steps have.
void add_totals(nlohmann::json& report, const Ledger& calls, double seconds,
                const Ceilings& ceilings) {
  const StepProfile total{.seconds = seconds, .counted = 1, .calls = calls};
  double least = 0;
  for (const auto& [kind, cost] : calls) least += ceilings.least_seconds(cost);
  const double outside = seconds - total.seconds_in_calls();
  report.update(
      {{"step_seconds", seconds},
       {"images_per_second", report["batch"].get<double>() / seconds},
       {"least_seconds", least},
       {"ceilings", {{"gflop_per_s", ceilings.gflop_per_s}, {"gb_per_s", ceilings.gb_per_s}}},
       {"operators", by_operator(calls, seconds, ceilings)},
       {"outside_operators", {{"seconds", outside}, {"share", outside / seconds}}}});
}

nlohmann::json profile_whole(const Options& options, nn::Model& model) {
  const TimedContext timed(options.device);
  Ceilings ceilings;
  ceilings.measure(timed.context);
  const RandomBatch images(options.batch, options.model_options.input,
                           options.model_options.classes);
  StepProfile profile;
  {
    nn::BpTrainer trainer(timed.context, model, kOptimizer, 0);
    profile =
        profile_steps(*timed.backend, options.steps, [&] { trainer.train(images.host(), {}); });
  }
  ceilings.measure(timed.context);

  nlohmann::json report = options.describe(model.name(), timed.backend->threads());
  report["mode"] = "backpropagation";
  report["counted_steps"] = profile.counted;
  add_totals(report, profile.calls, profile.seconds, ceilings);
  std::vector<std::string> order;
  for (const auto& unit : model.units()) order.push_back(unit->name());
  order.emplace_back("head");
  report["units"] = by_unit(profile, order);
  return report;
}

constexpr const char* kClassifier = "classifier";

/// Gives calls of a unit's classifier a name of their own.
class Classifier final : public nn::Module {
 public:
  explicit Classifier(nn::Module& module) : module_(module) {}
  Tensor forward(const nn::Pass& pass, const Tensor& x) override {
    const UnitScope scope(kClassifier);
    return module_.forward(pass, x);
  }
  Shape output_shape(const Shape& x) const override { return module_.output_shape(x); }
  std::int64_t flops(const Shape& x) const override { return module_.flops(x); }
  void visit(const std::function<void(nn::Parameter&)>& visitor) override {
    module_.visit(visitor);
  }

 private:
  nn::Module& module_;
};

/// One unit's step; `ledger` and `seconds` grow by it.
nlohmann::json profile_unit(const Options& options, const TimedContext& timed, nn::Model& model,
                            const AuxiliaryRule& rule, std::int64_t i, Ledger& ledger,
                            double& seconds) {
  nn::Unit& unit = model.unit(i);
  const bool last = i + 1 == model.unit_count();
  const Shape features = model.unit_input_shape(i + 1, 1);
  const std::int64_t width =
      options.auxiliary_width > 0 ? options.auxiliary_width : rule.widths(features).back();
  const auto auxiliary = last ? nullptr : make_auxiliary(model, rule, i, width);
  Classifier classifier(last ? model.head() : *auxiliary);
  const Shape sample = model.unit_input_shape(i, 1).sample();
  const RandomBatch images(options.batch, sample, options.model_options.classes);
  LocalBlock block(timed.context, {{unit.name(), &unit, &classifier}}, sample, kOptimizer, 0);
  const StepProfile profile =
      profile_steps(*timed.backend, options.steps, [&] { block.train(images.host(), {}); });

  double in_unit = 0, in_classifier = 0, in_update = 0;
  for (const auto& [kind, cost] : profile.calls) {
    if (kind.unit == kClassifier || kind.op == "softmax_cross_entropy")
      in_classifier += cost.seconds;
    else if (kind.phase == "update")
      in_update += cost.seconds;
    else if (kind.unit == unit.name())
      in_unit += cost.seconds;
    ledger[kind] += cost;
  }
  seconds += profile.seconds;
  nlohmann::json row{{"unit", unit.name()},
                     {"output", features.sample().extents()},
                     {"step_seconds", profile.seconds},
                     {"images_per_second", static_cast<double>(options.batch) / profile.seconds},
                     {"unit_seconds", in_unit},
                     {"classifier_seconds", in_classifier},
                     {"update_seconds", in_update},
                     {"other_seconds", profile.seconds - in_unit - in_classifier - in_update},
                     {"counted_steps", profile.counted}};
  if (!last) row["auxiliary_width"] = width;
  return row;
}

nlohmann::json profile_local(const Options& options, nn::Model& model) {
  const TimedContext timed(options.device);
  Ceilings ceilings;
  ceilings.measure(timed.context);
  const auto rule = make_auxiliary_rule(options.rule);
  auto units = nlohmann::json::array();
  Ledger ledger;
  double seconds = 0;
  for (std::int64_t i = 0; i < model.unit_count(); ++i)
    units.push_back(profile_unit(options, timed, model, *rule, i, ledger, seconds));
  ceilings.measure(timed.context);

  nlohmann::json report = options.describe(model.name(), timed.backend->threads());
  report["mode"] = "local";
  report["auxiliary"] = options.rule;
  add_totals(report, ledger, seconds, ceilings);
  for (nlohmann::json& unit : units) unit["share"] = unit["step_seconds"].get<double>() / seconds;
  report["units"] = std::move(units);
  return report;
}

double milliseconds(const nlohmann::json& row, const char* field) {
  return 1e3 * row[field].get<double>();
}

double percent(const nlohmann::json& row, const char* field = "share") {
  return 1e2 * row[field].get<double>();
}

void print_operators(const nlohmann::json& report) {
  fmt::print("\n{:22} {:15} {:>6} {:>10} {:>7} {:>9} {:>7} {:>8}\n", "operator", "pass", "calls",
             "ms/step", "share", "GFLOP/s", "GB/s", "ceiling");
  for (const nlohmann::json& row : report["operators"]) {
    const std::string pass = row["pass"].get<std::string>();
    const std::string rate =
        row.contains("gflop_per_s") ? fmt::format("{:.1f}", row["gflop_per_s"].get<double>()) : "-";
    fmt::print("{:22} {:15} {:6} {:10.3f} {:6.1f}% {:>9} {:7.1f} {:7.0f}%\n",
               row["operator"].get<std::string>(), pass.empty() ? "-" : pass,
               row["calls"].get<std::int64_t>(), milliseconds(row, "seconds"), percent(row), rate,
               row["gb_per_s"].get<double>(), percent(row, "of_ceiling"));
  }
  const nlohmann::json& outside = report["outside_operators"];
  fmt::print("{:45} {:10.3f} {:6.1f}%\n", "outside operators", milliseconds(outside, "seconds"),
             percent(outside));
}

void print_units(const nlohmann::json& report) {
  fmt::print("\n{:24} {:>6} {:>10} {:>7} {:>10} {:>11} {:>9}\n", "unit", "calls", "ms/step",
             "share", "forward ms", "backward ms", "GFLOP/s");
  for (const nlohmann::json& row : report["units"]) {
    const std::string unit = row["unit"].get<std::string>();
    fmt::print("{:24} {:6} {:10.3f} {:6.1f}% {:10.3f} {:11.3f} {:9.1f}\n",
               unit.empty() ? "(input)" : unit, row["calls"].get<std::int64_t>(),
               milliseconds(row, "seconds"), percent(row), milliseconds(row, "forward_seconds"),
               milliseconds(row, "backward_seconds"), row["gflop_per_s"].get<double>());
  }
}

void print_local_units(const nlohmann::json& report) {
  fmt::print("\n{:24} {:>9} {:>10} {:>9} {:>7} {:>8} {:>13} {:>9} {:>8}\n", "unit", "aux width",
             "ms/step", "images/s", "share", "unit ms", "classifier ms", "update ms", "other ms");
  for (const nlohmann::json& row : report["units"])
    fmt::print(
        "{:24} {:>9} {:10.3f} {:9.0f} {:6.1f}% {:8.3f} {:13.3f} {:9.3f} {:8.3f}\n",
        row["unit"].get<std::string>(),
        row.contains("auxiliary_width") ? std::to_string(row["auxiliary_width"].get<std::int64_t>())
                                        : "head",
        milliseconds(row, "step_seconds"), row["images_per_second"].get<double>(), percent(row),
        milliseconds(row, "unit_seconds"), milliseconds(row, "classifier_seconds"),
        milliseconds(row, "update_seconds"), milliseconds(row, "other_seconds"));
}

void print(const Options& options, const nlohmann::json& report) {
  fmt::print("{}{} batch {} on {} ({}, {} threads): step {:.2f} ms, {:.1f} images/s\n",
             report["model"].get<std::string>(),
             options.local ? fmt::format(", all units' local steps ({})", options.rule) : "",
             options.batch, to_string(options.device.device), report["library"].get<std::string>(),
             report["threads"].get<int>(), milliseconds(report, "step_seconds"),
             report["images_per_second"].get<double>());
  fmt::print("ceilings: {:.0f} GFLOP/s (matrix product), {:.1f} GB/s (copy); at those {:.2f} ms\n",
             report["ceilings"]["gflop_per_s"].get<double>(),
             report["ceilings"]["gb_per_s"].get<double>(), milliseconds(report, "least_seconds"));
  print_operators(report);
  if (options.local)
    print_local_units(report);
  else
    print_units(report);
}

int run(int argc, char** argv) {
  Options options;
  std::unique_ptr<nn::Model> model;
  try {
    if (!parse(argc, argv, options)) return 0;
    model = nn::make_model(options.model, options.model_options);
  } catch (const std::exception& error) {
    throw BadFlags(error.what());
  }
  const nlohmann::json report =
      options.local ? profile_local(options, *model) : profile_whole(options, *model);
  if (options.json)
    fmt::print("{}\n", report.dump());
  else
    print(options, report);
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("profile", nf::bench::run, argc, argv);
}
