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

class AtomicFile;

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
  std::string stage;  ///< of the program: "bp", "block 2"
};

class MemoryTrace {
 public:
  MemoryTrace() : start_(std::chrono::steady_clock::now()) {}

  void record(MemoryAction action, const std::byte* address, std::int64_t asked,
              std::int64_t granted, const PoolStats& after, Category category);

  /// What later events belong to. In a Chrome trace an instant event of that name marks the change.
  void set_stage(std::string stage) { stage_ = std::move(stage); }

  /// By extension: .csv (one row an event) or .json (Chrome trace: one counter track with a series
  /// per category, one for live and reserved, and an instant event per allocation).
  /// Throws Error for another extension or a file that can't be written, of which nothing is left.
  void write(const std::filesystem::path& path) const;

  const std::vector<MemoryEvent>& events() const { return events_; }

 private:
  void write_csv(AtomicFile& out) const;
  void write_chrome(AtomicFile& out) const;

  std::chrono::steady_clock::time_point start_;
  std::vector<MemoryEvent> events_;
  std::string stage_;
};

/// Has a pool record its events from here to end(), or to the end of the scope: a pool must not
/// keep a trace that may be gone before it. A null trace records nothing.
class TraceScope {
 public:
  TraceScope(Pool& pool, MemoryTrace* trace) : pool_(pool) { pool_.set_trace(trace); }
  ~TraceScope() { end(); }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;
  void end() { pool_.set_trace(nullptr); }

 private:
  Pool& pool_;
};

/// Throws Error unless the extension is one that MemoryTrace::write knows.
void check_trace_path(const std::filesystem::path& path);

}  // namespace nf
