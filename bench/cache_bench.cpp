// Times the activation cache on storage: the bare queue of requests, and whole caches.
// bench/README.md tells how to read it.
#include <fmt/format.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/conditions.h"
#include "bench/program.h"
#include "engine/random.h"
#include "engine/timer.h"
#include "neuroflux/activation_cache.h"

namespace nf::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Options {
  fs::path folder = fs::temp_directory_path();
  std::int64_t mib = 1024;
  std::int64_t chunk_kib = 1024;
  std::int64_t depth = StorageQueueOptions{}.depth;
  std::int64_t repetitions = 3;
  DType dtype = DType::bf16;
  bool json = false;
};

// A map of 64 channels, 32x32: what the first units of nets for small images put out.
const Shape kSample{32, 32, 64};
constexpr std::int64_t kBatch = 64;

struct Way {
  StorageEngine engine;
  bool direct;
};

/// Median of MB/s (10^6 bytes), with the slowest and the fastest.
struct Rates {
  std::vector<double> each;

  void add(std::int64_t bytes, double seconds) {
    each.push_back(static_cast<double>(bytes) / 1e6 / seconds);
  }
  json to_json() const {
    const auto [least, most] = std::minmax_element(each.begin(), each.end());
    return {{"median", median(each)}, {"min", *least}, {"max", *most}};
  }
};

/// Removed at the end with what is in it.
class Folder {
 public:
  explicit Folder(const fs::path& parent) {
    std::string pattern = (parent / "cache_bench_XXXXXX").string();
    NF_CHECK(::mkdtemp(pattern.data()) != nullptr, "--folder: cannot make a folder in {}",
             parent.string());
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// So that buffered reads come from storage and not from the page cache.
void forget_pages(const fs::path& path) { DiskFile(path, DiskFile::Mode::write).forget_pages(); }

/// Requests of a chunk each over a file, as many in flight as may be.
class QueueRates {
 public:
  QueueRates(const Options& options, const Way& way, fs::path path)
      : path_(std::move(path)),
        access_(way.direct ? DiskFile::Access::direct : DiskFile::Access::buffered),
        bytes_(options.chunk_kib << 10),
        count_((options.mib << 20) / bytes_),
        queue_(make_storage_queue({.engine = way.engine, .depth = options.depth})),
        buffers_(options.depth, bytes_) {}

  void measure(Rates& write, Rates& read) {
    {
      DiskFile file(path_, DiskFile::Mode::create, access_);
      file.reserve(count_ * bytes_);
      const Timer timer;
      over_all([&](std::int64_t i, std::int64_t buffer) {
        queue_->write(file, i * bytes_, buffers_[buffer], static_cast<std::uint64_t>(buffer));
      });
      file.sync();
      write.add(count_ * bytes_, timer.seconds());
    }
    forget_pages(path_);
    const DiskFile file(path_, DiskFile::Mode::read, access_);
    RandomStream random(random_key(0, Purpose::shuffle));
    const auto order = permutation(count_, random);
    const Timer timer;
    over_all([&](std::int64_t i, std::int64_t buffer) {
      queue_->read(file, order[static_cast<std::size_t>(i)] * bytes_, buffers_[buffer],
                   static_cast<std::uint64_t>(buffer));
    });
    read.add(count_ * bytes_, timer.seconds());
  }

 private:
  void over_all(const auto& request) {
    const auto await = [&] {
      const auto done = queue_->wait();
      NF_CHECK(done.error.empty(), "{}", done.error);
      return static_cast<std::int64_t>(done.tag);
    };
    for (std::int64_t i = 0; i < count_; ++i) request(i, i < queue_->depth() ? i : await());
    while (queue_->in_flight() > 0) await();
  }

  fs::path path_;
  DiskFile::Access access_;
  std::int64_t bytes_, count_;
  std::unique_ptr<StorageQueue> queue_;
  StagingBuffers buffers_;
};

/// Through CacheWriter and CacheReader, by a caller that does nothing else.
class CacheRates {
 public:
  CacheRates(const Options& options, const Way& way, fs::path folder)
      : folder_(std::move(folder)),
        storage_{.queue = {.engine = way.engine, .depth = options.depth}, .direct = way.direct},
        spec_{.name = "bench",
              .count = (options.mib << 20) / (kSample.numel() * size_of(options.dtype)),
              .sample_shape = kSample,
              .dtype = options.dtype,
              .chunk_bytes = options.chunk_kib << 10},
        samples_(static_cast<std::size_t>(kBatch * kSample.numel())),
        labels_(static_cast<std::size_t>(kBatch)) {
    RandomStream random(random_key(0, Purpose::generate));
    for (float& value : samples_) value = random.normal();
  }

  void measure(Rates& write, Rates& read) {
    const std::int64_t bytes = cache_layout(spec_).data_bytes;
    {
      CacheWriter writer(folder_, spec_, {.storage = storage_});
      const Timer timer;
      for (std::int64_t first = 0; first < spec_.count; first += kBatch)
        writer.append(samples_.data(), labels_.data(), std::min(kBatch, spec_.count - first));
      writer.close();
      write.add(bytes, timer.seconds());
    }
    forget_pages(cache_files(folder_, spec_.name).data);
    CacheReader reader(folder_, spec_.name, {.storage = storage_});
    const Timer timer;
    reader.start(kBatch, 0);
    while (reader.next() != nullptr) {
    }
    read.add(bytes, timer.seconds());
  }

 private:
  fs::path folder_;
  CacheStorage storage_;
  CacheSpec spec_;
  std::vector<float> samples_;
  std::vector<std::int32_t> labels_;
};

template <typename Measure>
json rates(const Options& options, Measure&& measure) {
  Rates write, read;
  for (std::int64_t i = 0; i < options.repetitions; ++i) measure.measure(write, read);
  return {{"write_mb_per_s", write.to_json()}, {"read_mb_per_s", read.to_json()}};
}

/// False where only the help was asked for. Throws Error or CLI::ParseError for bad flags.
bool parse(int argc, char** argv, Options& options) {
  std::string dtype = "bf16";
  CLI::App app{"Times the activation cache on storage, by each way of reading and writing files."};
  app.option_defaults()->always_capture_default();
  app.add_option("--folder", options.folder, "on the storage to be measured")
      ->check(CLI::ExistingDirectory);
  app.add_option("--mib", options.mib, "size of the cache")->check(CLI::Range(16, 1 << 20));
  app.add_option("--chunk-kib", options.chunk_kib, "bytes of a request, without padding")
      ->check(CLI::Range(4, 16384));
  app.add_option("--depth", options.depth, "requests in flight")->check(CLI::Range(1, 64));
  app.add_option("--repetitions", options.repetitions, "of which the median is told")
      ->check(CLI::Range(1, 1000));
  app.add_option("--dtype", dtype, "of cached values")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_flag("--json", options.json, "one JSON object instead of a table");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return false;
  }
  options.dtype = parse_dtype(dtype);
  return true;
}

json measure_all(const Options& options) {
  const Folder folder(options.folder);
  json results = json::array();
  for (const StorageEngine engine : {StorageEngine::uring, StorageEngine::threads})
    for (const bool direct : {true, false}) {
      const Way way{engine, direct};
      json result{{"engine", to_string(engine)}, {"direct", direct}};
      std::string refusal;
      if (engine == StorageEngine::uring && make_uring_queue(1, refusal) == nullptr) {
        result["skipped"] = refusal;
      } else if (direct && !DiskFile(folder.path() / "probe", DiskFile::Mode::create,
                                     DiskFile::Access::direct)
                                .direct()) {
        result["skipped"] = "no direct access in this file system";
      } else {
        result["queue"] = rates(options, QueueRates(options, way, folder.path() / "queue"));
        result["cache"] = rates(options, CacheRates(options, way, folder.path()));
      }
      results.push_back(std::move(result));
    }
  return {{"mib", options.mib},
          {"chunk_kib", options.chunk_kib},
          {"depth", options.depth},
          {"dtype", to_string(options.dtype)},
          {"repetitions", options.repetitions},
          {"compiler", compiler()},
          {"build", build()},
          {"commit", commit()},
          {"results", results}};
}

void print_table(const json& measured) {
  fmt::print("{} MiB, requests of {} KiB, {} in flight; median MB/s of {}\n",
             measured["mib"].get<int>(), measured["chunk_kib"].get<int>(),
             measured["depth"].get<int>(), measured["repetitions"].get<int>());
  fmt::print("{:<10}{:<10}{:>12}{:>12}{:>12}{:>12}\n", "engine", "files", "queue write",
             "queue read", "cache write", "cache read");
  for (const json& result : measured["results"]) {
    fmt::print("{:<10}{:<10}", result["engine"].get<std::string>(),
               result["direct"].get<bool>() ? "direct" : "buffered");
    if (result.contains("skipped")) {
      fmt::print("  skipped: {}\n", result["skipped"].get<std::string>());
      continue;
    }
    for (const char* part : {"queue", "cache"})
      for (const char* rate : {"write_mb_per_s", "read_mb_per_s"})
        fmt::print("{:>12.0f}", result[part][rate]["median"].get<double>());
    fmt::print("\n");
  }
}

int run(int argc, char** argv) {
  Options options;
  try {
    if (!parse(argc, argv, options)) return 0;
  } catch (const std::exception& error) {
    throw BadFlags(error.what());
  }
  const json measured = measure_all(options);
  if (options.json)
    fmt::print("{}\n", measured.dump());
  else
    print_table(measured);
  return 0;
}

}  // namespace
}  // namespace nf::bench

int main(int argc, char** argv) {
  return nf::bench::run_program("cache_bench", nf::bench::run, argc, argv);
}
