// Blocks: which units together, at which batch, in which time.
#include <algorithm>
#include <cmath>
#include <map>

#include "neuroflux/cache_manifest.h"
#include "neuroflux/planner.h"

namespace nf {
namespace {

// alpha * batch + beta by least squares through (batch, bytes).
struct Line {
  double alpha = 0.0, beta = 0.0;

  explicit Line(const std::vector<std::pair<std::int64_t, std::int64_t>>& points) {
    double n = 0, x = 0, y = 0, xx = 0, xy = 0;
    for (const auto& [batch, bytes] : points) {
      const auto b = static_cast<double>(batch), m = static_cast<double>(bytes);
      n += 1, x += b, y += m, xx += b * b, xy += b * m;
    }
    alpha = (n * xy - x * y) / (n * xx - x * x);
    beta = (y - alpha * x) / n;
  }
  std::int64_t operator()(std::int64_t batch) const {
    return std::llround(alpha * static_cast<double>(batch) + beta);
  }
};

}  // namespace

void Planner::make_net() {
  net_ = std::make_unique<LocalNet>(model_, rule_, plan_);
  const auto units = static_cast<std::size_t>(model_.unit_count());
  fitted_.assign(units, std::vector<std::optional<BlockPlan>>(units));
}

void Planner::time_units() {
  storage_ = times_.storage();
  for (std::int64_t i = 0; i < model_.unit_count(); ++i)
    unit_times_.push_back(
        times_.unit(net_->range(i, i).front(), net_->input_sample(i), members_batch({i, i})));
}

std::vector<UnitRange> Planner::cut() {
  const std::int64_t units = model_.unit_count();
  if (options_.partition == PartitionRule::whole) return {{0, units - 1}};
  if (options_.partition == PartitionRule::homogeneous) return homogeneous();
  optimum_ = partition_optimal(units, [this](UnitRange range) { return cost(range); });
  return optimum_.blocks;
}

std::optional<double> Planner::cost(UnitRange range) {
  const BlockPlan& block = fit_block(range);
  return block.batch > 0 ? std::optional(expected(block)) : std::nullopt;
}

// A unit joins while its feasible batch is like the block's first one's, and while the block's own
// peak leaves about the batch that its members would have alone.
std::vector<UnitRange> Planner::homogeneous() {
  return partition_homogeneous(model_.unit_count(), [this](std::int64_t first, std::int64_t unit) {
    if (!alike(first, unit)) return false;
    const UnitRange range{first, unit};
    const auto together = static_cast<double>(fit_block(range).feasible_batch);
    return together >= 1.0 &&
           together >= (1.0 - options_.rho) * static_cast<double>(members_batch(range));
  });
}

bool Planner::alike(std::int64_t first, std::int64_t candidate) const {
  const auto a = static_cast<double>(unit_plan(first).feasible_batch);
  const auto b = static_cast<double>(unit_plan(candidate).feasible_batch);
  return std::abs(a - b) <= options_.rho * a;
}

std::int64_t Planner::members_batch(UnitRange range) const {
  std::int64_t batch = std::min(options_.batch, options_.train_count);
  for (std::int64_t i = range.first; i <= range.last; ++i)
    batch = std::min(batch, unit_plan(i).feasible_batch);
  return batch;
}

std::int64_t Planner::block_peak(UnitRange range, std::int64_t batch) {
  return profiler_.block_peak(net_->range(range.first, range.last), net_->input_sample(range.first),
                              workload(range, batch));
}

const BlockPlan& Planner::fit_block(UnitRange range) {
  std::optional<BlockPlan>& known =
      fitted_[static_cast<std::size_t>(range.first)][static_cast<std::size_t>(range.last)];
  if (known) return *known;
  // A block fits no larger batch than its parts do.
  std::int64_t members = members_batch(range);
  if (range.last > range.first) {
    const auto& shorter =
        fitted_[static_cast<std::size_t>(range.first)][static_cast<std::size_t>(range.last - 1)];
    if (shorter) members = std::min(members, shorter->feasible_batch);
  }
  BlockPlan block{range.first, range.last};
  if (members > 0) block = largest_fit(range, members);
  if (!last(range.last)) block.cache_bytes = cached_bytes(range.last, true);
  if (block.batch > 0) {
    block.feasible_batch = block.batch;
    block.batch = fastest_batch(pass_times(range), block.feasible_batch, options_.train_count);
    if (block.batch != block.feasible_batch)
      block.predicted_peak_bytes = block_peak(range, block.batch);
    block.time = time_of(block);
  }
  return known.emplace(block);
}

BlockPlan Planner::largest_fit(UnitRange range, std::int64_t members) {
  BlockPlan block{range.first, range.last};
  std::map<std::int64_t, std::int64_t> peaks;
  const auto exact = [&](std::int64_t batch) {
    const auto [entry, fresh] = peaks.try_emplace(batch);
    if (fresh) entry->second = block_peak(range, batch);
    return entry->second;
  };
  std::int64_t most = members;
  if (options_.memory_model == MemoryModel::linear && members > 1) {
    std::vector<std::pair<std::int64_t, std::int64_t>> points;
    // From one end to the other: a line through small batches knows nothing of the workspaces that
    // larger ones ask for.
    const std::int64_t count = std::min(options_.linear_points, members);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t batch = 1 + i * (members - 1) / (count - 1);
      points.emplace_back(batch, exact(batch));
    }
    const Line line(points);
    // Where peaks bend, the line can have even one sample over a budget that it fits.
    const std::int64_t chosen = largest_batch(members, options_.budget, line);
    if (chosen > 0) {
      block.linear_peak_bytes = line(chosen);
      most = chosen;
    }
  }
  // Whatever chose it, a batch is run only where its exact peak fits.
  block.batch = largest_batch(most, options_.budget, exact);
  block.predicted_peak_bytes = exact(std::max<std::int64_t>(block.batch, 1));
  return block;
}

std::vector<const PassTimes*> Planner::pass_times(UnitRange range) const {
  std::vector<const PassTimes*> passes;
  for (std::int64_t i = range.first; i <= range.last; ++i)
    passes.push_back(&unit_times_[static_cast<std::size_t>(i)]);
  return passes;
}

BlockTime Planner::time_of(const BlockPlan& block) const {
  BlockWork work{options_.epochs,   options_.train_count, options_.validation_count, 0,
                 block.cache_bytes, options_.cache_views};
  if (block.first_unit > 0) work.read_bytes = cached_bytes(block.first_unit - 1, false);
  return block_time(pass_times({block.first_unit, block.last_unit}), block.batch, work, storage_);
}

// The chance that training reaches a block which begins with this unit, when each unit is as likely
// as any to be the last that improves and training ends `patience` exits behind it.
double Planner::chance(std::int64_t first_unit) const {
  if (!options_.stop_when_saturated || options_.validation_count == 0) return 1.0;
  const auto units = static_cast<double>(model_.unit_count());
  const auto behind = static_cast<double>(first_unit - options_.patience);
  return std::clamp((units - behind) / units, 0.0, 1.0);
}

double Planner::expected(const BlockPlan& block) const {
  const double reached = chance(block.first_unit);
  const double goes_on = chance(block.last_unit + 1);
  return reached * (block.time.train + block.time.evaluation) + goes_on * block.time.cache;
}

std::int64_t Planner::cached_bytes(std::int64_t last_unit, bool all) const {
  CacheSpec spec;
  spec.sample_shape = unit_plan(last_unit).output;
  spec.dtype = options_.cache_dtype;
  const auto bytes = [&](const char* name, std::int64_t count) {
    if (count == 0) return std::int64_t{0};
    spec.name = name;
    spec.count = count;
    return cache_bytes(spec);
  };
  const std::int64_t train = bytes("train", options_.train_count);
  if (!all) return train;
  NF_CHECK(train < (std::int64_t{1} << 60) / options_.cache_views,
           "plan: {} cached views of {} bytes each take more than can be addressed",
           options_.cache_views, train);
  return options_.cache_views * train + bytes("validation", options_.validation_count);
}

void Planner::add_block(const BlockPlan& block) {
  const std::int64_t previous = plan_.blocks.empty() ? 0 : plan_.blocks.back().cache_bytes;
  plan_.predicted_peak_bytes = std::max(plan_.predicted_peak_bytes, block.predicted_peak_bytes);
  plan_.cache_bytes = std::max(plan_.cache_bytes, previous + block.cache_bytes);
  plan_.predicted_seconds += block.time.total();
  plan_.expected_seconds += expected(block);
  for (std::int64_t i = block.first_unit; i <= block.last_unit; ++i)
    unit_plan(i).step_seconds = unit_times_[static_cast<std::size_t>(i)].train.seconds(block.batch);
  plan_.blocks.push_back(block);
}

}  // namespace nf
