#include "neuroflux/activation_cache.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <span>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "neuroflux/cache_values.h"
#include "neuroflux/checksum.h"

namespace nf {

namespace {

// Caches that lie there already are replaced one by one.
std::int64_t bytes_within(const std::filesystem::path& folder) {
  std::int64_t bytes = 0;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(folder, code))
    if (entry.is_regular_file(code)) bytes += static_cast<std::int64_t>(entry.file_size(code));
  return bytes;
}

}  // namespace

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
    const std::int64_t have = free_bytes(folder) + bytes_within(folder);
    NF_CHECK(bytes <= have, "activation cache: {} bytes are needed in {}, {} are free", bytes,
             folder.string(), have);
  } catch (...) {
    remove_made();
    throw;
  }
  remove_made();
}

CacheWriter::CacheWriter(std::filesystem::path folder, CacheSpec spec, CacheWriteOptions options)
    : layout_(cache_layout(spec)),
      manifest_{.spec = std::move(spec), .chunk_checksums = {}, .labels_checksum = 0} {
  const std::string what = fmt::format("activation cache '{}'", manifest_.spec.name);
  const std::int64_t least = least_host_bytes(manifest_.spec, CachePlace::disk);
  std::int64_t left = std::numeric_limits<std::int64_t>::max();
  if (options.host_limit_bytes > 0) left = options.host_limit_bytes;
  NF_CHECK(least <= left, "{}: writing takes {} bytes of host memory at the least, the limit is {}",
           what, least, options.host_limit_bytes);
  NF_CHECK(options.buffers >= 1, "{}: {} buffers to write from, at least 1 expected", what,
           options.buffers);
  if (options.host != nullptr) left = std::min(left, options.host->left());
  const std::int64_t more = std::max<std::int64_t>(0, left - least) / layout_.chunk_stride;
  const std::int64_t buffers = 1 + std::min({options.buffers - 1, more, layout_.chunks - 1});
  charge_ = HostCharge(options.host, least + (buffers - 1) * layout_.chunk_stride, what);
  sink_ =
      std::make_unique<DiskChunkSink>(std::move(folder), manifest_.spec, options.storage, buffers);
  labels_.reserve(static_cast<std::size_t>(layout_.count));
}

CacheWriter::CacheWriter(std::unique_ptr<ChunkSink> sink, CacheSpec spec,
                         std::shared_ptr<HostMemory> host)
    : layout_(cache_layout(spec)),
      manifest_{.spec = std::move(spec), .chunk_checksums = {}, .labels_checksum = 0},
      charge_(std::move(host), least_host_bytes(manifest_.spec, CachePlace::memory),
              fmt::format("activation cache '{}'", manifest_.spec.name)),
      sink_(std::move(sink)) {
  labels_.reserve(static_cast<std::size_t>(layout_.count));
}

std::int64_t CacheWriter::least_host_bytes(const CacheSpec& spec, CachePlace place) {
  const CacheLayout layout = cache_layout(spec);
  return (place == CachePlace::disk ? layout.chunk_stride : 0) + layout.label_bytes +
         layout.chunks * static_cast<std::int64_t>(sizeof(std::uint64_t));
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
    if (chunk_.empty()) chunk_ = sink_->room();
    const std::int64_t taken = std::min(n, layout_.samples_per_chunk - filled_);
    const std::int64_t values = taken * layout_.sample_values;
    encode_values({samples, static_cast<std::size_t>(values)}, spec.dtype,
                  chunk_.data() + filled_ * layout_.sample_bytes);
    samples += values;
    filled_ += taken;
    n -= taken;
    if (filled_ == layout_.samples_per_chunk) put_chunk();
  }
  state_ = State::open;
}

void CacheWriter::put_chunk() {
  const auto chunk = static_cast<std::int64_t>(manifest_.chunk_checksums.size());
  const auto payload = static_cast<std::size_t>(filled_ * layout_.sample_bytes);
  std::ranges::fill(chunk_.subspan(payload), std::byte{0});
  manifest_.chunk_checksums.push_back(hash_bytes(chunk_.first(payload)));
  sink_->put(chunk);
  chunk_ = {};
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
  if (filled_ > 0) put_chunk();
  manifest_.labels_checksum = hash_bytes(std::as_bytes(std::span(labels_)));
  sink_->finish(manifest_, labels_);
  state_ = State::closed;
}

}  // namespace nf
