#include "neuroflux/staging.h"

#include "engine/error.h"
#include "neuroflux/disk_file.h"

namespace nf {

StagingBuffers::StagingBuffers(std::int64_t count, std::int64_t bytes)
    : count_(count), bytes_(bytes), stride_((bytes + kDiskBlock - 1) / kDiskBlock * kDiskBlock) {
  NF_CHECK(count >= 1 && bytes >= 1, "staging: {} buffers of {} bytes, at least 1 each expected",
           count, bytes);
  memory_.reset(static_cast<std::byte*>(
      std::aligned_alloc(kDiskBlock, static_cast<std::size_t>(count * stride_))));
  NF_CHECK(memory_ != nullptr, "staging: the host has not the {} bytes for {} buffers of {}",
           count * stride_, count, bytes);
}

}  // namespace nf
