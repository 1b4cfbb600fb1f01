#include "engine/memory/scope.h"

namespace nf {

MemoryTags& memory_tags() {
  thread_local MemoryTags tags;
  return tags;
}

}  // namespace nf
