// The catalogue holds every launcher, and each of its entries runs, at plain and at odd sizes. On
// the emulator also: without a fault, and with no more traffic than the bounds stated here.
#include "kernels/catalogue.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>

#include "tests/kernels/device.h"

namespace nf::NF_TARGET::test {
namespace {

constexpr StorageType kStorageTypes[] = {StorageType::f32, StorageType::bf16, StorageType::f16};

/// Operands for one entry after the other.
class Memory {
 public:
  Allocate allocate() {
    return [this](std::int64_t bytes) {
      arrays_.push_back(std::make_unique<DeviceArray<std::byte>>(bytes));
      return static_cast<void*>(arrays_.back()->data());
    };
  }
  void wait() const { probe_.host(); }

 private:
  DeviceArray<std::byte> probe_{1};
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> arrays_;
};

std::string describe(const CatalogueSizes& s) {
  std::ostringstream text;
  text << to_string(s.storage) << " (" << s.n << ", " << s.h << ", " << s.w << ", " << s.c << ")";
  return text.str();
}

void run_all(const CatalogueSizes& sizes) {
  SCOPED_TRACE(describe(sizes));
  for (const CatalogueEntry& entry : catalogue(sizes)) {
    SCOPED_TRACE(entry.name());
    try {
      Memory memory;
      const Launch launch = entry.prepare(memory.allocate(), kStream);
      launch(kStream);
      launch(kStream);
      memory.wait();
    } catch (const KernelError& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

TEST(KernelsCatalogue, NamesAreUniqueAndBytesPositive) {
  for (const StorageType storage : kStorageTypes) {
    std::set<std::string> names;
    for (const CatalogueEntry& entry : catalogue({.storage = storage})) {
      EXPECT_TRUE(names.insert(entry.name()).second) << entry.name();
      EXPECT_GT(entry.must_bytes(), 0) << entry.name();
      EXPECT_FALSE(entry.family.empty()) << entry.name();
    }
  }
}

TEST(KernelsCatalogue, RunsAtThePlainSize) {
  for (const StorageType storage : kStorageTypes)
    run_all({.n = 2, .h = 8, .w = 8, .c = 32, .storage = storage});
}

TEST(KernelsCatalogue, RunsAtOddSizes) {
  for (const StorageType storage : kStorageTypes) {
    run_all({.n = 3, .h = 5, .w = 7, .c = 13, .storage = storage});
    run_all({.n = 1, .h = 1, .w = 1, .c = 1, .storage = storage});
    run_all({.n = 1, .h = 1, .w = 33, .c = 3, .storage = storage});
    run_all({.n = 2, .h = 9, .w = 2, .c = 1, .storage = storage});
    run_all({.n = 1, .h = 2, .w = 3, .c = 129, .storage = storage});
  }
}

#if !defined(NF_TESTS_ON_GPU)

/// What the headers beside catalogue.h declare with a stream as first parameter.
std::map<std::string, std::set<std::string>> declared_launchers() {
  std::map<std::string, std::set<std::string>> launchers;
  const std::regex declaration(R"(^void (\w+)\(Stream\b)");
  for (const auto& file : std::filesystem::directory_iterator(NF_KERNELS_FOLDER)) {
    if (file.path().extension() != ".h") continue;
    std::ifstream in(file.path());
    for (std::string line; std::getline(in, line);)
      if (std::smatch match; std::regex_search(line, match, declaration))
        launchers[file.path().stem().string()].insert(match[1]);
  }
  return launchers;
}

TEST(KernelsCatalogue, HoldsEveryLauncher) {
  for (const StorageType storage : kStorageTypes) {
    std::map<std::string, std::set<std::string>> listed;
    for (const CatalogueEntry& entry : catalogue({.storage = storage}))
      listed[entry.family].insert(entry.launcher);
    EXPECT_EQ(listed, declared_launchers());
  }
}

/// Of the bytes that must be moved, what a launcher whose name begins so may at most move (whether
/// a cache serves it or not) and may at most touch (each sector of a kernel once). The longest
/// beginning counts.
struct Bound {
  double moved, touched;
};
const std::map<std::string, Bound> kBounds{
    {"", {1.02, 1.01}},
    // What all rows share comes anew to each warp: a bias, a channel's statistics.
    {"add_bias", {1.25, 1.01}},
    {"spread_rows", {1.10, 1.01}},
    {"batch_norm_forward", {1.50, 1.02}},
    {"batch_norm_backward", {1.42, 1.02}},
    // A warp's few results fill part of a sector; partial sums.
    {"reduce_rows", {1.05, 1.01}},
    {"column_sums", {1.02, 1.01}},
    // A row's logits are read again.
    {"softmax_cross_entropy", {2.28, 1.01}},
    // dy is read by each cell of its window, overlapping windows read x again.
    {"max_pool_forward/3x3", {1.80, 1.01}},
    {"avg_pool_forward/3x3", {1.84, 1.01}},
    {"max_pool_backward", {1.28, 1.01}},
    {"max_pool_backward/3x3", {2.42, 1.01}},
    {"avg_pool_backward", {1.21, 1.01}},
    {"avg_pool_backward/3x3", {2.04, 1.01}},
    {"adaptive_avg_pool_backward", {1.50, 1.01}},
    // Neighbouring tiles share what lies around them; the filter's gradient has partial sums, many
    // in a small map.
    {"depthwise_forward/3x3", {2.52, 1.01}},
    {"depthwise_forward/5x5", {4.50, 1.01}},
    {"depthwise_backward_input/3x3", {2.52, 1.01}},
    {"depthwise_backward_input/5x5", {4.50, 1.01}},
    {"depthwise_backward_weight/3x3", {3.18, 1.29}},
    {"depthwise_backward_weight/5x5", {5.83, 1.39}},
    // Every block reads the tables, here for one small image each.
    {"prepare_images", {2.75, 1.03}},
};

Bound bound_of(const std::string& name) {
  const auto* best = &*kBounds.begin();
  for (const auto& bound : kBounds)
    if (name.starts_with(bound.first) && bound.first.size() >= best->first.size()) best = &bound;
  return best->second;
}

/// Of one launch.
Bound ratios_of(const CatalogueEntry& entry) {
  const emulator::Options before = emulator::options();
  Memory memory;
  const Launch launch = entry.prepare(memory.allocate(), kStream);
  emulator::set_options({.behaviour = true});
  emulator::reset_behaviour();
  launch(kStream);
  std::int64_t moved = 0, touched = 0;
  for (const emulator::KernelBehaviour& kernel : emulator::behaviour()) {
    for (const emulator::Traffic& traffic : {kernel.loads, kernel.stores, kernel.atomics})
      moved += traffic.bytes_moved();
    touched += kernel.footprint_bytes;
  }
  emulator::set_options(before);
  emulator::reset_behaviour();
  const auto must = static_cast<double>(entry.must_bytes());
  return {static_cast<double>(moved) / must, static_cast<double>(touched) / must};
}

TEST(KernelsCatalogue, MovesLittleMoreThanItMust) {
  for (const StorageType storage : {StorageType::f32, StorageType::bf16})
    for (const CatalogueEntry& entry : catalogue({.storage = storage})) {
      SCOPED_TRACE(entry.name() + " " + to_string(storage));
      const Bound ratios = ratios_of(entry), bound = bound_of(entry.name());
      EXPECT_LE(ratios.moved, bound.moved);
      EXPECT_LE(ratios.touched, bound.touched);
    }
}

#endif

}  // namespace
}  // namespace nf::NF_TARGET::test
