// Ways to cut a row of units into blocks, as pure functions of what blocks cost.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

/// How a plan cuts the net into blocks.
enum class PartitionRule : std::uint8_t {
  optimal,      ///< least expected time, by dynamic programming over all cuts
  homogeneous,  ///< units whose feasible batches are alike
  whole,        ///< one block: all units on the device together
};
const char* to_string(PartitionRule rule);
/// Throws Error naming the value and the nearest known one.
PartitionRule parse_partition_rule(std::string_view name);
const std::vector<std::string>& partition_rule_names();

/// Units first..last, counted from 0, inclusive.
struct UnitRange {
  std::int64_t first = 0, last = 0;
  bool operator==(const UnitRange&) const = default;
};

/// What a block costs; empty where it can't be trained at any batch.
using BlockCost = std::function<std::optional<double>(UnitRange)>;

/// The partition of units 0..count-1 with the least sum of costs, and what each border is worth.
struct OptimalPartition {
  std::vector<UnitRange> blocks;  ///< empty: there is none
  double cost = 0.0;
  /// Border i lies between units i and i + 1: the least cost with a cut there, and without one;
  /// empty where there is no such partition.
  struct Border {
    std::optional<double> cut, joined;
  };
  std::vector<Border> borders;
};

/// Dynamic programming in O(count^2) calls of `cost`, each range asked once. Where a block can't be
/// trained, none that contains it is asked for. Ties go to fewer blocks.
OptimalPartition partition_optimal(std::int64_t count, const BlockCost& cost);

/// The rule `homogeneous`: unit u joins the block of unit f while `joins(f, u)`.
std::vector<UnitRange> partition_homogeneous(
    std::int64_t count, const std::function<bool(std::int64_t first, std::int64_t unit)>& joins);

}  // namespace nf
