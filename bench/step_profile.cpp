#include "bench/step_profile.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "bench/reference.h"
#include "bench/step_flags.h"
#include "engine/timer.h"

namespace nf::bench {
namespace {

template <typename Run>
double fastest(Backend& backend, const Run& run) {
  run();
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    backend.synchronize();
    const Timer timer;
    run();
    backend.synchronize();
    least = std::min(least, timer.seconds());
  }
  return least;
}

}  // namespace

void Ceilings::measure(const ContextPtr& context) {
  {
    const std::int64_t side = reference_side(context->device().kind);
    ReferenceProduct product(context, {.n = side, .i = side, .o = side});
    const double seconds = fastest(context->backend(), [&] { product.run(); });
    gflop_per_s = std::max(gflop_per_s, product.flops() / seconds / 1e9);
  }
  ReferenceCopy copy(context, kReferenceCopyBytes);
  const double seconds = fastest(context->backend(), [&] { copy.run(); });
  gb_per_s = std::max(gb_per_s, static_cast<double>(copy.bytes_moved()) / seconds / 1e9);
}

double Ceilings::least_seconds(const CallCost& cost) const {
  return std::max(cost.flops / gflop_per_s, cost.bytes / gb_per_s) / 1e9;
}

double StepProfile::seconds_in_calls() const {
  double sum = 0;
  for (const auto& [kind, cost] : calls) sum += cost.seconds;
  return sum;
}

StepProfile profile_steps(TimedBackend& backend, std::int64_t steps,
                          const std::function<void()>& step) {
  std::vector<std::pair<double, Ledger>> timed;
  for (std::int64_t i = 0; i < kWarmUpSteps + steps; ++i) {
    backend.synchronize();
    backend.take();
    const Timer timer;
    step();
    backend.synchronize();
    const double seconds = timer.seconds();
    if (i >= kWarmUpSteps) timed.emplace_back(seconds, backend.take());
  }
  std::sort(timed.begin(), timed.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  timed.resize((timed.size() + 1) / 2);

  StepProfile profile{.seconds = 0, .counted = std::ssize(timed), .calls = {}};
  for (const auto& [seconds, calls] : timed) {
    profile.seconds += seconds;
    for (const auto& [kind, cost] : calls) profile.calls[kind] += cost;
  }
  const auto count = static_cast<double>(profile.counted);
  profile.seconds /= count;
  for (auto& [kind, cost] : profile.calls) {
    cost.calls /= profile.counted;
    cost.seconds /= count;
    cost.flops /= count;
    cost.bytes /= count;
  }
  return profile;
}

nlohmann::json by_operator(const Ledger& calls, double step_seconds, const Ceilings& ceilings) {
  struct Row {
    std::string_view op, pass;
    CallCost cost;
    double least = 0;
  };
  std::vector<Row> rows;
  for (const auto& [kind, cost] : calls) {
    auto row = std::find_if(rows.begin(), rows.end(), [&kind = kind](const Row& r) {
      return r.op == kind.op && r.pass == kind.pass;
    });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{kind.op, kind.pass, {}});
    row->cost += cost;
    row->least += ceilings.least_seconds(cost);
  }
  std::sort(rows.begin(), rows.end(),
            [](const Row& a, const Row& b) { return a.cost.seconds > b.cost.seconds; });
  auto out = nlohmann::json::array();
  for (const Row& row : rows) {
    nlohmann::json fields{{"operator", row.op},
                          {"pass", row.pass},
                          {"calls", row.cost.calls},
                          {"seconds", row.cost.seconds},
                          {"share", row.cost.seconds / step_seconds},
                          {"gb_per_s", row.cost.bytes / row.cost.seconds / 1e9},
                          {"of_ceiling", row.least / row.cost.seconds}};
    if (row.cost.flops > 0) fields["gflop_per_s"] = row.cost.flops / row.cost.seconds / 1e9;
    out.push_back(std::move(fields));
  }
  return out;
}

nlohmann::json by_unit(const StepProfile& profile, const std::vector<std::string>& order) {
  struct Row {
    std::string unit;
    CallCost all;
    double forward = 0, backward = 0;
  };
  std::vector<Row> rows;
  for (const std::string& unit : order) rows.push_back({.unit = unit, .all = {}});
  for (const auto& [kind, cost] : profile.calls) {
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&kind = kind](const Row& r) { return r.unit == kind.unit; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{.unit = kind.unit, .all = {}});
    row->all += cost;
    if (kind.phase == "forward") row->forward += cost.seconds;
    if (kind.phase == "backward") row->backward += cost.seconds;
  }
  auto out = nlohmann::json::array();
  for (const Row& row : rows) {
    if (row.all.calls == 0) continue;
    out.push_back({{"unit", row.unit},
                   {"calls", row.all.calls},
                   {"seconds", row.all.seconds},
                   {"share", row.all.seconds / profile.seconds},
                   {"forward_seconds", row.forward},
                   {"backward_seconds", row.backward},
                   {"gflop_per_s", row.all.flops / row.all.seconds / 1e9}});
  }
  return out;
}

}  // namespace nf::bench
