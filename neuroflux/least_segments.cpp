// The segments with which backpropagation that computes activations again takes the least memory.
#include <algorithm>
#include <map>
#include <tuple>

#include "neuroflux/memory_profile.h"

namespace nf {
namespace {

// With a segment that begins at `unit` where there was none, without it where there was.
nn::Segments toggled(nn::Segments segments, std::int64_t unit) {
  const auto at = std::lower_bound(segments.begin(), segments.end(), unit);
  if (at != segments.end() && *at == unit)
    segments.erase(at);
  else
    segments.insert(at, unit);
  return segments;
}

// Those that differ in one border or in two: a border that moves is two.
std::vector<nn::Segments> neighbours(const nn::Segments& segments, std::int64_t units) {
  std::vector<nn::Segments> all;
  for (std::int64_t unit = 1; unit < units; ++unit) {
    const nn::Segments one = toggled(segments, unit);
    all.push_back(one);
    for (std::int64_t other = 1; other < unit; ++other) all.push_back(toggled(one, other));
  }
  return all;
}

}  // namespace

nn::Segments MemoryProfiler::least_segments(nn::Model& model, const Workload& workload) {
  const std::int64_t units = model.unit_count();
  std::map<nn::Segments, std::int64_t> peaks;
  const auto cost = [&](const nn::Segments& segments) {
    auto [entry, fresh] = peaks.try_emplace(segments);
    if (fresh) entry->second = checkpoint_peak(model, workload, segments);
    return std::tuple(entry->second, segments.size());
  };
  // Early units save the most, so even segments are rarely the best, but each leads to others.
  nn::Segments best{0};
  for (std::int64_t count = 1; count <= units; ++count) {
    nn::Segments here = nn::even_segments(units, count);
    for (bool better = true; better;) {
      better = false;
      for (const nn::Segments& other : neighbours(here, units))
        if (cost(other) < cost(here)) {
          here = other;
          better = true;
        }
    }
    best = std::min(best, here, [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
  }
  return best;
}

}  // namespace nf
