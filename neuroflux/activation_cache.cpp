#include "neuroflux/activation_cache.h"

#include <unistd.h>

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "engine/error.h"

namespace nf {

void check_cache_folder(const std::filesystem::path& folder, std::int64_t bytes) {
  namespace fs = std::filesystem;
  std::error_code code;
  std::vector<fs::path> made;  // from the inside out
  for (fs::path path = fs::absolute(folder); !fs::exists(path, code); path = path.parent_path())
    made.push_back(path);
  const auto remove_made = [&] {
    for (const fs::path& path : made) fs::remove(path, code);
  };
  fs::create_directories(folder, code);
  if (code) {
    const std::string reason = code.message();
    remove_made();
    fail("activation cache: cannot make folder {}: {}", folder.string(), reason);
  }
  try {
    const fs::path probe = folder / fmt::format("probe-{}", ::getpid());
    DiskFile(probe, DiskFile::Mode::create).close();
    fs::remove(probe, code);
    const std::int64_t have = free_bytes(folder);
    NF_CHECK(bytes <= have, "activation cache: {} bytes are needed in {}, {} are free", bytes,
             folder.string(), have);
  } catch (...) {
    remove_made();
    throw;
  }
  remove_made();
}

CacheWriter::CacheWriter(std::filesystem::path folder, CacheSpec spec)
    : folder_(std::move(folder)),
      layout_(cache_layout(spec)),
      files_(cache_files(folder_, spec.name)),
      manifest_{.spec = std::move(spec), .chunk_checksums = {}, .labels_checksum = 0} {
  const std::string& name = manifest_.spec.name;
  const std::int64_t need = cache_bytes(manifest_.spec);
  std::error_code code;
  made_folder_ = std::filesystem::create_directories(folder_, code);
  NF_CHECK(!code, "activation cache '{}': cannot make folder {}: {}", name, folder_.string(),
           code.message());
  try {
    remove_cache(folder_, name);
    const std::int64_t have = free_bytes(folder_);
    NF_CHECK(need <= have, "activation cache '{}': needs {} bytes in {}, {} are free", name, need,
             folder_.string(), have);
    data_ = DiskFile(files_.data, DiskFile::Mode::create);
    data_.reserve(layout_.data_bytes);
    labels_file_ = DiskFile(files_.labels, DiskFile::Mode::create);
    labels_file_.reserve(layout_.label_bytes);
    chunk_.resize(static_cast<std::size_t>(layout_.chunk_stride));
    labels_.reserve(static_cast<std::size_t>(layout_.count));
  } catch (...) {
    discard();
    throw;
  }
}

CacheWriter::~CacheWriter() {
  if (state_ != State::closed) discard();
}

void CacheWriter::append(const float* samples, const std::int32_t* labels, std::int64_t n) {
  const CacheSpec& spec = manifest_.spec;
  const auto before = static_cast<std::int64_t>(labels_.size());
  NF_CHECK(state_ == State::open, "activation cache '{}': append after {}", spec.name,
           state_ == State::closed ? "close" : "a failure");
  NF_CHECK(n >= 0 && n <= spec.count - before,
           "activation cache '{}': append of {} samples after {} of {}", spec.name, n, before,
           spec.count);
  // Broken until proven otherwise: after a throw, samples and labels may be out of step.
  state_ = State::broken;
  labels_.insert(labels_.end(), labels, labels + n);
  while (n > 0) {
    const std::int64_t taken = std::min(n, layout_.samples_per_chunk - filled_);
    const std::int64_t values = taken * layout_.sample_values;
    encode_values({samples, static_cast<std::size_t>(values)}, spec.dtype,
                  chunk_.data() + filled_ * layout_.sample_bytes);
    samples += values;
    filled_ += taken;
    n -= taken;
    if (filled_ == layout_.samples_per_chunk) write_chunk();
  }
  state_ = State::open;
}

void CacheWriter::write_chunk() {
  const auto chunk = static_cast<std::int64_t>(manifest_.chunk_checksums.size());
  const auto payload = static_cast<std::size_t>(filled_ * layout_.sample_bytes);
  const std::int64_t offset = layout_.offset(chunk);
  const std::int64_t end = std::min(offset + layout_.chunk_stride, layout_.data_bytes);
  std::fill(chunk_.begin() + static_cast<std::ptrdiff_t>(payload), chunk_.end(), std::byte{0});
  const std::span<const std::byte> bytes(chunk_);
  data_.write_at(offset, bytes.first(static_cast<std::size_t>(end - offset)));
  manifest_.chunk_checksums.push_back(hash_bytes(bytes.first(payload)));
  filled_ = 0;
}

void CacheWriter::close() {
  if (state_ == State::closed) return;
  NF_CHECK(state_ == State::open, "activation cache '{}': close after a failure",
           manifest_.spec.name);
  const auto have = static_cast<std::int64_t>(labels_.size());
  NF_CHECK(have == layout_.count, "activation cache '{}': close after {} of {} samples",
           manifest_.spec.name, have, layout_.count);
  state_ = State::broken;
  if (filled_ > 0) write_chunk();
  const auto label_bytes = std::as_bytes(std::span(labels_));
  labels_file_.write_at(0, label_bytes);
  manifest_.labels_checksum = hash_bytes(label_bytes);
  data_.sync();
  labels_file_.sync();
  data_.close();
  labels_file_.close();
  write_manifest(files_.manifest, manifest_);
  state_ = State::closed;
}

void CacheWriter::discard() noexcept {
  data_.close();
  labels_file_.close();
  std::error_code ignored;
  std::filesystem::remove(files_.manifest, ignored);
  std::filesystem::remove(files_.data, ignored);
  std::filesystem::remove(files_.labels, ignored);
  // Only an empty folder can be removed so, and only one that was not there before.
  if (made_folder_) std::filesystem::remove(folder_, ignored);
}

}  // namespace nf
