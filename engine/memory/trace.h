// A record of every allocation, for viewers: Chrome/Perfetto trace or CSV.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "engine/memory/pool.h"

namespace nf {

enum class MemoryAction : std::uint8_t { allocate, free, out_of_budget };

struct MemoryEvent {
  std::int64_t time_ns = 0;  ///< since the trace was made
  MemoryAction action = MemoryAction::allocate;
  std::uint64_t address = 0;
  std::int64_t asked = 0;
  std::int64_t granted = 0;
  std::int64_t live = 0;
  std::int64_t reserved = 0;
  BytesByCategory by_category{};
  Category category = Category::activation;
  std::string op;
  std::string unit;
  std::string phase;
};

class MemoryTrace {
 public:
  MemoryTrace() : start_(std::chrono::steady_clock::now()) {}

  void record(MemoryAction action, const std::byte* address, std::int64_t asked,
              std::int64_t granted, const PoolStats& after, Category category);

  /// By extension: .csv (one row an event) or .json (Chrome trace: one counter track with a series
  /// per category, one for live and reserved, and an instant event per allocation).
  /// Throws Error for another extension or a file that can't be written.
  void write(const std::filesystem::path& path) const;

  const std::vector<MemoryEvent>& events() const { return events_; }

 private:
  void write_csv(std::ostream& out) const;
  void write_chrome(std::ostream& out) const;

  std::chrono::steady_clock::time_point start_;
  std::vector<MemoryEvent> events_;
};

/// Throws Error unless the extension is one that MemoryTrace::write knows.
void check_trace_path(const std::filesystem::path& path);

}  // namespace nf
