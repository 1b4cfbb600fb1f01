#include "tools/kernels_command.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "engine/text.h"
#include "neuroflux/summary.h"
#include "tools/errors.h"
#if defined(NF_SIMT)
#include "kernels/emulator/emulator.h"
#endif

namespace nf::tools {
namespace {

using nlohmann::json;

#if defined(NF_SIMT)

/// Memory that the emulator knows of, until the end.
class EmulatedMemory {
 public:
  EmulatedMemory() = default;
  ~EmulatedMemory() {
    for (const auto& block : blocks_) simt::emulator::remove_memory(block.get());
  }
  EmulatedMemory(const EmulatedMemory&) = delete;
  EmulatedMemory& operator=(const EmulatedMemory&) = delete;

  void* allocate(std::int64_t bytes) {
    constexpr std::size_t kAlignment = 256;
    const std::size_t rounded =
        (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    std::unique_ptr<void, Free> block(std::aligned_alloc(kAlignment, rounded));
    if (block == nullptr) throw std::bad_alloc();
    blocks_.push_back(std::move(block));
    simt::emulator::add_memory(blocks_.back().get(), bytes);
    return blocks_.back().get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::vector<std::unique_ptr<void, Free>> blocks_;
};

KernelFigures figures_of(const simt::emulator::KernelBehaviour& seen) {
  KernelFigures figures;
  figures.kernel = seen.name;
  figures.launches = seen.launches;
  figures.threads = seen.threads;
  for (const simt::emulator::Traffic& traffic : {seen.loads, seen.stores, seen.atomics}) {
    figures.requests += traffic.requests;
    figures.sectors += traffic.sectors;
    figures.asked_bytes += traffic.bytes_asked;
    figures.moved_bytes += traffic.bytes_moved();
  }
  if (figures.moved_bytes > 0)
    figures.efficiency =
        static_cast<double>(figures.asked_bytes) / static_cast<double>(figures.moved_bytes);
  figures.footprint_bytes = seen.footprint_bytes;
  figures.shared_requests = seen.shared_requests;
  figures.shared_passes = seen.shared_passes;
  figures.worst_conflict = seen.worst_conflict;
  figures.shared_bytes = seen.shared_bytes;
  figures.barriers = seen.barriers;
  return figures;
}

LauncherFigures look_at(const CatalogueEntry& entry, std::uint64_t seed) {
  EmulatedMemory memory;
  simt::emulator::set_options({.seed = seed});
  const Launch launch =
      entry.prepare([&memory](std::int64_t bytes) { return memory.allocate(bytes); }, nullptr);
  simt::emulator::set_options({.seed = seed, .behaviour = true});
  simt::emulator::reset_behaviour();
  launch(nullptr);
  LauncherFigures figures{.family = entry.family,
                          .launcher = entry.launcher,
                          .variant = entry.variant,
                          .must_read_bytes = entry.read_bytes,
                          .must_write_bytes = entry.written_bytes,
                          .kernels = {}};
  for (const simt::emulator::KernelBehaviour& seen : simt::emulator::behaviour())
    figures.kernels.push_back(figures_of(seen));
  return figures;
}

/// Puts the emulator back as it was.
class EmulatorOptions {
 public:
  EmulatorOptions() : before_(simt::emulator::options()) {}
  ~EmulatorOptions() {
    simt::emulator::set_options(before_);
    simt::emulator::reset_behaviour();
  }
  EmulatorOptions(const EmulatorOptions&) = delete;
  EmulatorOptions& operator=(const EmulatorOptions&) = delete;

 private:
  simt::emulator::Options before_;
};

#endif

json to_json(const KernelFigures& kernel) {
  return {{"kernel", kernel.kernel},
          {"launches", kernel.launches},
          {"threads", kernel.threads},
          {"requests", kernel.requests},
          {"sectors", kernel.sectors},
          {"asked_bytes", kernel.asked_bytes},
          {"moved_bytes", kernel.moved_bytes},
          {"efficiency", kernel.efficiency},
          {"footprint_bytes", kernel.footprint_bytes},
          {"shared_requests", kernel.shared_requests},
          {"shared_passes", kernel.shared_passes},
          {"worst_conflict", kernel.worst_conflict},
          {"shared_bytes", kernel.shared_bytes},
          {"barriers", kernel.barriers}};
}

/// To a common width, so that they stand to the left.
void pad_column(std::vector<std::vector<std::string>>& rows, std::size_t column) {
  std::size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row[column].size());
  for (auto& row : rows) row[column].resize(width, ' ');
}

}  // namespace

std::int64_t LauncherFigures::moved_bytes() const {
  std::int64_t bytes = 0;
  for (const KernelFigures& kernel : kernels) bytes += kernel.moved_bytes;
  return bytes;
}

std::int64_t LauncherFigures::footprint_bytes() const {
  std::int64_t bytes = 0;
  for (const KernelFigures& kernel : kernels) bytes += kernel.footprint_bytes;
  return bytes;
}

double LauncherFigures::ratio() const {
  return static_cast<double>(moved_bytes()) / static_cast<double>(must_bytes());
}

#if defined(NF_SIMT)

std::vector<LauncherFigures> look_at_kernels(const KernelsOptions& options) {
  const EmulatorOptions restored;
  std::vector<LauncherFigures> figures;
  std::vector<std::string> names;
  for (const CatalogueEntry& entry : simt::catalogue(options.sizes)) {
    names.push_back(entry.name());
    if (names.back().find(options.kernel) != std::string::npos)
      figures.push_back(look_at(entry, options.seed));
  }
  if (figures.empty())
    fail_usage("--kernel: no launcher's name contains \"{}\"; did you mean {}?", options.kernel,
               nearest_name(options.kernel, names));
  return figures;
}

#else

std::vector<LauncherFigures> look_at_kernels(const KernelsOptions&) {
  fail(
      "kernels: this build has no emulator to run them on (it was configured with NF_SIMT=OFF, or "
      "for a sanitizer)");
}

#endif

std::string to_table(const std::vector<LauncherFigures>& launchers) {
  std::vector<std::vector<std::string>> rows{
      {"kernel", "launcher", "requests", "sectors", "asked B", "moved B", "asked/moved",
       "footprint B", "must B", "moved/must", "shared req", "passes", "conflict", "barriers"}};
  for (const LauncherFigures& launcher : launchers) {
    for (const KernelFigures& kernel : launcher.kernels) {
      const bool first = &kernel == launcher.kernels.data();
      rows.push_back({kernel.kernel, launcher.name(), std::to_string(kernel.requests),
                      std::to_string(kernel.sectors), std::to_string(kernel.asked_bytes),
                      std::to_string(kernel.moved_bytes), fmt::format("{:.2f}", kernel.efficiency),
                      std::to_string(kernel.footprint_bytes),
                      first ? std::to_string(launcher.must_bytes()) : "",
                      first ? fmt::format("{:.2f}", launcher.ratio()) : "",
                      std::to_string(kernel.shared_requests), std::to_string(kernel.shared_passes),
                      std::to_string(kernel.worst_conflict), std::to_string(kernel.barriers)});
    }
  }
  pad_column(rows, 1);
  return format_table(rows);
}

json to_json(const KernelsOptions& options, const std::vector<LauncherFigures>& launchers) {
  const CatalogueSizes& sizes = options.sizes;
  json list = json::array();
  for (const LauncherFigures& launcher : launchers) {
    json kernels = json::array();
    for (const KernelFigures& kernel : launcher.kernels) kernels.push_back(to_json(kernel));
    list.push_back({{"family", launcher.family},
                    {"launcher", launcher.launcher},
                    {"variant", launcher.variant},
                    {"must_read_bytes", launcher.must_read_bytes},
                    {"must_write_bytes", launcher.must_write_bytes},
                    {"must_bytes", launcher.must_bytes()},
                    {"moved_bytes", launcher.moved_bytes()},
                    {"footprint_bytes", launcher.footprint_bytes()},
                    {"ratio", launcher.ratio()},
                    {"kernels", kernels}});
  }
  return {{"batch", sizes.n},
          {"height", sizes.h},
          {"width", sizes.w},
          {"channels", sizes.c},
          {"dtype", to_string(sizes.storage)},
          {"seed", options.seed},
          {"launchers", list}};
}

}  // namespace nf::tools
