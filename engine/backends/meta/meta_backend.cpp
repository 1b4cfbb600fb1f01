#include "engine/backends/meta/meta_backend.h"

#include <cstring>

#include "engine/error.h"

namespace nf {
namespace meta {
namespace {

// Far from null and from what a system hands out; with any size below 2^53 a double holds it.
constexpr std::uintptr_t kBase = std::uintptr_t{1} << 40;
constexpr std::int64_t kMostBytes = (std::int64_t{1} << 53) - static_cast<std::int64_t>(kBase);

class FakeRange final : public AddressRange {
 public:
  explicit FakeRange(std::int64_t bytes) : bytes_(bytes) {}
  std::byte* base() const override { return reinterpret_cast<std::byte*>(kBase); }
  std::int64_t bytes() const override { return bytes_; }

 private:
  std::int64_t bytes_;
};

}  // namespace

MetaBackend::MetaBackend(std::unique_ptr<Backend> target) : target_(std::move(target)) {
  NF_CHECK(target_ != nullptr, "meta: needs a backend to stand for");
}

std::unique_ptr<AddressRange> MetaBackend::reserve(std::int64_t bytes) {
  NF_CHECK(bytes > 0 && bytes <= kMostBytes, "meta: can't reserve {} bytes, at most {}", bytes,
           kMostBytes);
  return std::make_unique<FakeRange>(bytes);
}

void MetaBackend::copy_to_host(void* dst, ConstView src) {
  std::memset(dst, 0, static_cast<std::size_t>(src.numel() * size_of(src.dtype)));
}

}  // namespace meta

std::unique_ptr<Backend> make_meta_backend(std::unique_ptr<Backend> target) {
  return std::make_unique<meta::MetaBackend>(std::move(target));
}

}  // namespace nf
