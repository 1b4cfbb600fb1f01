// What a piece of memory is for, and in which operator, unit and phase it was asked for.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace nf {

enum class Category : std::uint8_t {
  parameter,
  buffer,
  gradient,  // of parameters
  optimizer,
  activation,
  activation_gradient,
  workspace,
  input,
};
inline constexpr int kCategories = 8;

constexpr const char* to_string(Category category) {
  constexpr std::array<const char*, kCategories> names{
      "parameter",           "buffer",    "gradient", "optimizer", "activation",
      "activation_gradient", "workspace", "input"};
  return names[static_cast<std::size_t>(category)];
}

using BytesByCategory = std::array<std::int64_t, kCategories>;

/// The tags of the calling thread; memory events and error messages carry them.
struct MemoryTags {
  std::string_view op, unit, phase;
};
MemoryTags& memory_tags();

/// The same name in memory that stays for the life of the process. Names are few: each is kept
/// once.
std::string_view lasting_name(std::string_view name);

/// Hears of the units and phases of the calling thread as they begin and end: a profiler's ranges.
class ScopeObserver {
 public:
  virtual ~ScopeObserver() = default;
  virtual void enter(const std::string& name) = 0;
  virtual void leave() = 0;
};
/// For the whole process; null: nobody. The observer must stay.
void observe_scopes(ScopeObserver* observer);

namespace detail {
/// True where somebody heard of it, and must hear of the end.
bool enter_scope(std::string_view name);
void leave_scope();
}  // namespace detail

/// Names the operator (a string literal) for the lifetime of the scope.
class OpScope {
 public:
  explicit OpScope(std::string_view op) : previous_(memory_tags().op) { memory_tags().op = op; }
  ~OpScope() { memory_tags().op = previous_; }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  std::string_view previous_;
};

/// Names the phase (a string literal: "forward", "backward", "update", "evaluate", …).
class PhaseScope {
 public:
  explicit PhaseScope(std::string_view phase)
      : previous_(memory_tags().phase), heard_(detail::enter_scope(phase)) {
    memory_tags().phase = phase;
  }
  ~PhaseScope() {
    memory_tags().phase = previous_;
    if (heard_) detail::leave_scope();
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  std::string_view previous_;
  bool heard_;
};

/// Names the unit of the network.
class UnitScope {
 public:
  explicit UnitScope(std::string_view unit)
      : previous_(std::exchange(memory_tags().unit, lasting_name(unit))),
        heard_(detail::enter_scope(unit)) {}
  ~UnitScope() {
    memory_tags().unit = previous_;
    if (heard_) detail::leave_scope();
  }
  UnitScope(const UnitScope&) = delete;
  UnitScope& operator=(const UnitScope&) = delete;

 private:
  std::string_view previous_;
  bool heard_;
};

}  // namespace nf
