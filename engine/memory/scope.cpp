#include "engine/memory/scope.h"

#include <atomic>
#include <functional>
#include <mutex>
#include <unordered_set>

namespace nf {
namespace {

std::atomic<ScopeObserver*> scope_observer{nullptr};

struct NameHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view name) const {
    return std::hash<std::string_view>()(name);
  }
};

// Never destroyed: what was named may outlive it.
struct Names {
  std::mutex mutex;
  std::unordered_set<std::string, NameHash, std::equal_to<>> all;
};

}  // namespace

MemoryTags& memory_tags() {
  thread_local MemoryTags tags;
  return tags;
}

std::string_view lasting_name(std::string_view name) {
  if (name.empty()) return {};
  static Names& names = *new Names;
  const std::lock_guard lock(names.mutex);
  const auto found = names.all.find(name);
  return found != names.all.end() ? *found : *names.all.emplace(name).first;
}

void observe_scopes(ScopeObserver* observer) { scope_observer = observer; }

bool detail::enter_scope(std::string_view name) {
  ScopeObserver* observer = scope_observer.load(std::memory_order_relaxed);
  if (observer == nullptr || name.empty()) return false;
  observer->enter(std::string(name));
  return true;
}

void detail::leave_scope() {
  ScopeObserver* observer = scope_observer.load(std::memory_order_relaxed);
  if (observer != nullptr) observer->leave();
}

}  // namespace nf
