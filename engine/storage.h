// One allocation of a context's pool, freed with its last tensor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/context.h"

namespace nf {

class Storage {
 public:
  /// Throws OutOfBudget when the pool can't grant `bytes`.
  Storage(ContextPtr context, std::int64_t bytes, Category category)
      : context_(std::move(context)),
        data_(context_->pool().allocate(bytes, category)),
        bytes_(bytes) {}
  ~Storage() { context_->pool().free(data_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  const ContextPtr& context() const { return context_; }

  /// Counts in-place writes, so that the tape notices an edit of a saved tensor.
  std::uint64_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  ContextPtr context_;
  std::byte* data_;
  std::int64_t bytes_;
  std::uint64_t version_ = 0;
};

}  // namespace nf
