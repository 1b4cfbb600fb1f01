// The segments with which backpropagation that computes activations again takes the least memory.
#include <algorithm>
#include <map>
#include <tuple>

#include "neuroflux/memory_profile.h"

namespace nf {
namespace {

constexpr std::int64_t kMostTriedUnits = 10;  // of which all 512 ways to cut them are tried
constexpr std::size_t kMostTrials = 200;      // where there are more: they bound how long it takes

// Every way to cut a chain of units.
std::vector<nn::Segments> all_segments(std::int64_t units) {
  std::vector<nn::Segments> all{{0}};
  for (std::int64_t unit = 1; unit < units; ++unit)
    for (std::size_t i = all.size(); i-- > 0;) {
      all.push_back(all[i]);
      all.back().push_back(unit);
    }
  return all;
}

// With a segment that begins at `unit` where there was none, without it where there was.
nn::Segments toggled(nn::Segments segments, std::int64_t unit) {
  const auto at = std::lower_bound(segments.begin(), segments.end(), unit);
  if (at != segments.end() && *at == unit)
    segments.erase(at);
  else
    segments.insert(at, unit);
  return segments;
}

// Those that differ in one border, then those that differ in two: a border that moves is two.
std::vector<nn::Segments> neighbours(const nn::Segments& segments, std::int64_t units) {
  std::vector<nn::Segments> all;
  for (std::int64_t unit = 1; unit < units; ++unit) all.push_back(toggled(segments, unit));
  for (std::int64_t unit = 1; unit < units; ++unit) {
    const nn::Segments one = toggled(segments, unit);
    for (std::int64_t other = 1; other < unit; ++other) all.push_back(toggled(one, other));
  }
  return all;
}

}  // namespace

nn::Segments MemoryProfiler::least_segments(nn::Model& model, const Workload& workload) {
  const std::int64_t units = model.unit_count();
  // Evaluation keeps nothing, and a shorter batch takes less.
  const Workload step{workload.batch, workload.batch, {}, false, workload.format};
  std::map<nn::Segments, std::int64_t> peaks;
  const auto cost = [&](const nn::Segments& segments) {
    auto [entry, fresh] = peaks.try_emplace(segments);
    if (fresh) entry->second = checkpoint_peak(model, step, segments);
    return std::tuple(entry->second, segments.size());
  };
  const auto cheaper = [&](const nn::Segments& a, const nn::Segments& b) {
    return cost(a) < cost(b);
  };
  if (units <= kMostTriedUnits) {
    const std::vector<nn::Segments> all = all_segments(units);
    return *std::min_element(all.begin(), all.end(), cheaper);
  }
  // Early units save the most, so even segments are rarely the best, but each leads to others.
  std::vector<nn::Segments> starts;
  for (std::int64_t count = 1; count <= units; ++count)
    starts.push_back(nn::even_segments(units, count));
  std::stable_sort(starts.begin(), starts.end(), cheaper);
  nn::Segments best = starts.front();
  for (nn::Segments here : starts) {
    for (bool better = true; better;) {
      better = false;
      for (const nn::Segments& other : neighbours(here, units)) {
        if (peaks.size() >= kMostTrials) break;
        if (!cheaper(other, here)) continue;
        here = other;
        better = true;
        break;
      }
    }
    best = std::min(best, here, cheaper);
  }
  return best;
}

}  // namespace nf
