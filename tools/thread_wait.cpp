#include "tools/thread_wait.h"

#include <unistd.h>

#include <cstdlib>

namespace nf::tools {

void limit_thread_spinning(char** argv) {
  constexpr int kReplace = 1;
  for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
    if (std::getenv(name) != nullptr) return;
  if (setenv("GOMP_SPINCOUNT", "1000", kReplace) != 0 ||
      setenv("KMP_BLOCKTIME", "1", kReplace) != 0)
    return;
  execv("/proc/self/exe", argv);
}

}  // namespace nf::tools
