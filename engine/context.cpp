#include "engine/context.h"

#include <algorithm>

namespace nf {
namespace {

// Addresses of the meta device stay below 2^53 and far from null.
constexpr std::int64_t kMetaBytes = std::int64_t{1} << 48;

// Beyond this a faster algorithm is not worth its memory here; of a small budget, beyond this
// share.
constexpr std::int64_t kMostWorkspace = std::int64_t{64} << 20;
constexpr std::int64_t kBudgetsPerWorkspace = 8;

std::unique_ptr<Backend> make_backend(Device device, const ContextOptions& options) {
  const CpuOptions cpu{.threads = options.threads, .onednn = options.onednn};
  switch (device.kind) {
    case DeviceKind::cpu:
      return make_cpu_backend(cpu);
    case DeviceKind::simt:
      return make_simt_backend(cpu);
    case DeviceKind::cuda:
      return make_cuda_backend(
          {.index = device.index, .tf32 = options.tf32, .workspace_cap = workspace_cap(options)});
    case DeviceKind::meta:
      break;
  }
  fail("context: meta must stand for a device that computes");
}

}  // namespace

std::int64_t workspace_cap(const ContextOptions& options) {
  if (options.workspace_cap > 0) return options.workspace_cap;
  if (options.budget == 0) return kMostWorkspace;
  return std::clamp(options.budget / kBudgetsPerWorkspace, std::int64_t{1}, kMostWorkspace);
}

Context::Context(const ContextOptions& options, std::unique_ptr<Backend> backend)
    : options_(options), backend_(std::move(backend)) {
  std::int64_t limit = options_.budget;
  if (limit == 0) limit = is_meta() ? kMetaBytes : backend_->memory_bytes();
  // The pool's range ends at the budget: whole granules only.
  limit -= limit % backend_->alignment();
  NF_CHECK(limit > 0, "context: a budget of {} bytes is less than one granule of {} bytes",
           options_.budget, backend_->alignment());
  pool_ = std::make_unique<Pool>(backend_->reserve(limit), backend_->alignment());
}

ContextPtr Context::create(const ContextOptions& options, const BackendDecorator& decorate) {
  NF_CHECK(options.budget >= 0, "context: the budget must not be negative, got {}", options.budget);
  NF_CHECK(options.workspace_cap >= 0, "context: the workspace cap must not be negative, got {}",
           options.workspace_cap);
  const bool meta = options.device.kind == DeviceKind::meta;
  const Device device = meta ? options.target : options.device;
  NF_CHECK(!options.graphs.value_or(false) || device.kind != DeviceKind::cpu,
           "context: graphs of steps are for cuda and simt, not for cpu");
  ContextOptions resolved = options;
  resolved.graphs = options.graphs.value_or(device.kind == DeviceKind::cuda);
  std::unique_ptr<Backend> backend = make_backend(device, options);
  if (meta) backend = make_meta_backend(std::move(backend));
  if (decorate) backend = decorate(std::move(backend));
  return ContextPtr(new Context(resolved, std::move(backend)));
}

ContextPtr make_meta_context(const ContextOptions& options) {
  ContextOptions meta = options;
  if (options.device.kind != DeviceKind::meta) meta.target = options.device;
  meta.device = {.kind = DeviceKind::meta};
  meta.workspace_cap = workspace_cap(options);
  meta.budget = 0;
  return Context::create(meta);
}

}  // namespace nf
