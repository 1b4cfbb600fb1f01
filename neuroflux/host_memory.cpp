#include "neuroflux/host_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "engine/error.h"

namespace nf {
namespace {

constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::max();

std::optional<std::int64_t> number_in(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::int64_t value = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || value < 0) return std::nullopt;
  return value;
}

std::string text_of(const char* path) {
  const std::ifstream in(path);
  std::ostringstream text;
  if (in.good()) text << in.rdbuf();
  return text.str();
}

}  // namespace

std::int64_t HostMemory::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

std::int64_t HostMemory::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void HostMemory::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_ = used_;
}

std::int64_t HostMemory::left() const {
  return limit_ == 0 ? kUnknown : std::max<std::int64_t>(0, limit_ - used());
}

HostCharge::HostCharge(std::shared_ptr<HostMemory> host, std::int64_t bytes,
                       const std::string& what)
    : host_(std::move(host)), bytes_(bytes) {
  if (host_ == nullptr) return;
  const std::lock_guard lock(host_->mutex_);
  const std::int64_t limit = host_->limit_;
  NF_CHECK(limit == 0 || bytes <= limit - host_->used_,
           "{}: {} bytes of host memory are needed beside {} in use, the limit is {}; the least "
           "that does is {}",
           what, bytes, host_->used_, limit, host_->used_ + bytes);
  host_->used_ += bytes;
  host_->peak_ = std::max(host_->peak_, host_->used_);
}

HostCharge::HostCharge(HostCharge&& other) noexcept
    : host_(std::move(other.host_)), bytes_(std::exchange(other.bytes_, 0)) {}

HostCharge& HostCharge::operator=(HostCharge&& other) noexcept {
  std::swap(host_, other.host_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

HostCharge::~HostCharge() {
  if (host_ == nullptr) return;
  const std::lock_guard lock(host_->mutex_);
  host_->used_ -= bytes_;
}

std::int64_t available_bytes(const std::string& meminfo, const std::string& group_limit,
                             const std::string& group_used) {
  std::int64_t available = kUnknown;
  constexpr std::string_view kField = "MemAvailable:";
  if (const std::size_t at = meminfo.find(kField); at != std::string::npos) {
    const auto kibibytes = number_in(std::string_view(meminfo).substr(at + kField.size()));
    if (kibibytes && *kibibytes < kUnknown / 1024) available = *kibibytes * 1024;
  }
  // A group without a limit says "max".
  const auto limit = number_in(group_limit), used = number_in(group_used);
  if (limit && used) available = std::min(available, std::max<std::int64_t>(0, *limit - *used));
  return available;
}

std::int64_t available_host_bytes() {
  return available_bytes(text_of("/proc/meminfo"), text_of("/sys/fs/cgroup/memory.max"),
                         text_of("/sys/fs/cgroup/memory.current"));
}

}  // namespace nf
