#include "engine/cores.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace nf {
namespace {

#if defined(__linux__)
/// Where the system's control groups of version 2 are found by convention.
constexpr const char* kGroups = "/sys/fs/cgroup";

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// The process's group of version 2, "/a/b"; empty where there is none.
std::filesystem::path own_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::/")) return line.substr(3);
  return {};
}

/// Cores of the tightest quota from the process's group up to the root; 0: there is none.
std::int64_t group_cores() {
  std::int64_t least = 0;
  std::filesystem::path group = own_group().relative_path();
  while (true) {
    const std::int64_t cores = quota_cores(first_line(kGroups / group / "cpu.max"));
    if (cores > 0 && (least == 0 || cores < least)) least = cores;
    if (group.empty()) return least;
    group = group.parent_path();
  }
}

int affine_cores() {
  cpu_set_t set;
  // Fails on machines of more cores than the set holds: they are not what a limit is for.
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}
#endif

}  // namespace

std::int64_t quota_cores(std::string_view cpu_max) {
  std::int64_t quota = 0, period = 0;
  const char* end = cpu_max.data() + cpu_max.size();
  const auto [space, error] = std::from_chars(cpu_max.data(), end, quota);
  if (error != std::errc{} || space == end || *space != ' ') return 0;
  if (std::from_chars(space + 1, end, period).ec != std::errc{}) return 0;
  if (quota <= 0 || period <= 0) return 0;
  return quota / period + (quota % period > 0 ? 1 : 0);
}

int usable_cores() {
  std::int64_t cores = std::thread::hardware_concurrency();
#if defined(__linux__)
  if (const int affine = affine_cores(); affine > 0) cores = affine;
  if (const std::int64_t quota = group_cores(); quota > 0) cores = std::min(cores, quota);
#endif
  return static_cast<int>(std::clamp<std::int64_t>(cores, 1, std::numeric_limits<int>::max()));
}

}  // namespace nf
