#include "neuroflux/partition.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/text.h"

namespace nf {
namespace {

using Cost = std::optional<double>;

Cost sum(const Cost& a, const Cost& b) { return a && b ? Cost(*a + *b) : std::nullopt; }

bool less(const Cost& a, const Cost& b) { return a && (!b || *a < *b); }

}  // namespace

const std::vector<std::string>& partition_rule_names() {
  static const std::vector<std::string> names{"optimal", "homogeneous", "whole"};
  return names;
}

const char* to_string(PartitionRule rule) {
  return partition_rule_names()[static_cast<std::size_t>(rule)].c_str();
}

PartitionRule parse_partition_rule(std::string_view name) {
  const std::vector<std::string>& names = partition_rule_names();
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<PartitionRule>(i);
  fail("partition: '{}' is not known; did you mean '{}'?", name, nearest_name(name, names));
}

OptimalPartition partition_optimal(std::int64_t count, const BlockCost& cost) {
  NF_CHECK(count >= 1, "partition: {} units", count);
  const auto units = static_cast<std::size_t>(count);
  std::vector<std::vector<Cost>> block(units, std::vector<Cost>(units));  // [first][last]
  for (std::size_t first = 0; first < units; ++first)
    for (std::size_t last = first; last < units; ++last) {
      block[first][last] =
          cost({static_cast<std::int64_t>(first), static_cast<std::int64_t>(last)});
      if (!block[first][last]) break;
    }
  // suffix[u]: units u.. alone; prefix[u]: units ..u-1 alone.
  std::vector<Cost> suffix(units + 1), prefix(units + 1);
  std::vector<std::size_t> end(units, 0);  // of the first block of the best suffix
  suffix[units] = prefix[0] = 0.0;
  for (std::size_t first = units; first-- > 0;)
    for (std::size_t last = units; last-- > first;) {
      const Cost candidate = sum(block[first][last], suffix[last + 1]);
      if (!less(candidate, suffix[first])) continue;
      suffix[first] = candidate;
      end[first] = last;
    }
  for (std::size_t last = 0; last < units; ++last)
    for (std::size_t first = 0; first <= last; ++first) {
      const Cost candidate = sum(prefix[first], block[first][last]);
      if (less(candidate, prefix[last + 1])) prefix[last + 1] = candidate;
    }
  OptimalPartition result;
  if (!suffix[0]) return result;
  result.cost = *suffix[0];
  for (std::size_t first = 0; first < units; first = end[first] + 1)
    result.blocks.push_back(
        {static_cast<std::int64_t>(first), static_cast<std::int64_t>(end[first])});
  for (std::size_t border = 0; border + 1 < units; ++border) {
    OptimalPartition::Border worth{sum(prefix[border + 1], suffix[border + 1]), std::nullopt};
    for (std::size_t first = 0; first <= border; ++first)
      for (std::size_t last = border + 1; last < units; ++last) {
        const Cost candidate = sum(sum(prefix[first], block[first][last]), suffix[last + 1]);
        if (less(candidate, worth.joined)) worth.joined = candidate;
      }
    result.borders.push_back(worth);
  }
  return result;
}

std::vector<UnitRange> partition_homogeneous(
    std::int64_t count, const std::function<bool(std::int64_t first, std::int64_t unit)>& joins) {
  NF_CHECK(count >= 1, "partition: {} units", count);
  std::vector<UnitRange> blocks{{0, 0}};
  for (std::int64_t unit = 1; unit < count; ++unit) {
    if (joins(blocks.back().first, unit))
      blocks.back().last = unit;
    else
      blocks.push_back({unit, unit});
  }
  return blocks;
}

}  // namespace nf
