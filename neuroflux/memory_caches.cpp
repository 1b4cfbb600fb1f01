#include "neuroflux/memory_caches.h"

#include <utility>

#include "engine/error.h"
#include "neuroflux/disk_file.h"
#include "neuroflux/staging.h"

namespace nf {

struct MemoryCaches::Cache {
  CacheSpec spec;
  CacheLayout layout;
  HostCharge charge;
  StagingBuffers data;  // one: sample after sample
  std::vector<std::int32_t> labels;

  std::span<std::byte> chunk(std::int64_t c) const {
    return data[0].subspan(static_cast<std::size_t>(layout.first_sample(c) * layout.sample_bytes),
                           static_cast<std::size_t>(layout.payload(c)));
  }
};

namespace {

std::string described(const std::string& name) {
  return fmt::format("activation cache '{}' in memory", name);
}

class MemorySource : public ChunkSource {
 public:
  explicit MemorySource(std::shared_ptr<const MemoryCaches::Cache> cache)
      : cache_(std::move(cache)) {}

  const CacheSpec& spec() const override { return cache_->spec; }
  const std::vector<std::int32_t>& labels() const override { return cache_->labels; }
  std::string where() const override { return described(cache_->spec.name); }
  std::int64_t buffer_bytes() const override { return 0; }
  std::int64_t fixed_host_bytes() const override { return 0; }

  void begin(const std::vector<std::int64_t>& order, std::int64_t /*buffers*/) override {
    order_ = &order;
  }
  Chunk& get(std::int64_t position) override {
    chunk_.bytes = cache_->chunk((*order_)[static_cast<std::size_t>(position)]);
    return chunk_;
  }
  void release(std::int64_t /*position*/) override {}
  void end() noexcept override { order_ = nullptr; }
  std::string repair(std::int64_t chunk, std::span<const std::byte> /*bytes*/) override {
    fail("{}: chunk {} can't be damaged", where(), chunk);
  }

 private:
  std::shared_ptr<const MemoryCaches::Cache> cache_;
  const std::vector<std::int64_t>* order_ = nullptr;
  Chunk chunk_;
};

class MemorySink : public ChunkSink {
 public:
  MemorySink(std::shared_ptr<MemoryCaches::Cache> cache,
             std::map<std::string, std::shared_ptr<const MemoryCaches::Cache>>& caches)
      : cache_(std::move(cache)), caches_(caches) {}

  std::span<std::byte> room() override { return cache_->chunk(chunks_); }
  void put(std::int64_t chunk) override { chunks_ = chunk + 1; }
  void finish(const CacheManifest& /*manifest*/, const std::vector<std::int32_t>& labels) override {
    cache_->labels = labels;
    caches_[cache_->spec.name] = cache_;
  }
  double wait_seconds() const override { return 0.0; }

 private:
  std::shared_ptr<MemoryCaches::Cache> cache_;
  std::map<std::string, std::shared_ptr<const MemoryCaches::Cache>>& caches_;
  std::int64_t chunks_ = 0;
};

}  // namespace

std::unique_ptr<ChunkSink> MemoryCaches::write(const CacheSpec& spec) {
  const std::int64_t need = host_bytes(spec);
  const std::int64_t have = available_host_bytes();
  NF_CHECK(need <= have, "{}: needs {} bytes, the host has {} available", described(spec.name),
           need, have);
  auto cache = std::make_shared<Cache>();
  cache->spec = spec;
  cache->layout = cache_layout(spec);
  cache->charge = HostCharge(host_, need, described(spec.name));
  cache->data = StagingBuffers(1, cache->layout.count * cache->layout.sample_bytes);
  return std::make_unique<MemorySink>(std::move(cache), caches_);
}

std::unique_ptr<ChunkSource> MemoryCaches::read(const std::string& name) const {
  const auto found = caches_.find(name);
  if (found == caches_.end()) fail_data("{}: there is none", described(name));
  return std::make_unique<MemorySource>(found->second);
}

std::int64_t MemoryCaches::host_bytes(const CacheSpec& spec) {
  const CacheLayout layout = cache_layout(spec);
  // The allocation ends at a whole block.
  const std::int64_t blocks = (layout.count * layout.sample_bytes + kDiskBlock - 1) / kDiskBlock;
  return blocks * kDiskBlock + layout.label_bytes;
}

}  // namespace nf
