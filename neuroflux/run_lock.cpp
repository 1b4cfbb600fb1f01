#include "neuroflux/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "engine/error.h"

namespace nf {

RunLock::RunLock(const std::filesystem::path& folder) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);
  NF_CHECK(!made, "run folder: can't make {}: {}", folder.string(), made.message());
  do {
    descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR);
  const int code = errno;
  NF_CHECK(descriptor_ >= 0, "run folder: can't open {}: {}", folder.string(),
           std::generic_category().message(code));
  int status = 0;
  do {
    status = ::flock(descriptor_, LOCK_EX | LOCK_NB);
  } while (status != 0 && errno == EINTR);
  if (status == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  fail("run folder: another run is going on in {}", folder.string());
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace nf
