// A file system of its own that is soon full.
#pragma once

#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>

namespace nf::test {

/// A tmpfs of `bytes` on `folder`, which is made; needs the rights of root.
class SmallFileSystem {
 public:
  SmallFileSystem(std::filesystem::path folder, std::int64_t bytes) : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
    const std::string size = "size=" + std::to_string(bytes);
    if (::mount("nf-test", folder_.c_str(), "tmpfs", 0, size.c_str()) != 0)
      refusal_ = std::generic_category().message(errno);
  }
  ~SmallFileSystem() {
    if (refusal_.empty()) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;

  /// Why it could not be mounted; empty: it was.
  const std::string& refusal() const { return refusal_; }

 private:
  std::filesystem::path folder_;
  std::string refusal_;
};

}  // namespace nf::test
