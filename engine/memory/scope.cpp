#include "engine/memory/scope.h"

#include <atomic>

namespace nf {
namespace {

std::atomic<ScopeObserver*> scope_observer{nullptr};

}  // namespace

MemoryTags& memory_tags() {
  thread_local MemoryTags tags;
  return tags;
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
