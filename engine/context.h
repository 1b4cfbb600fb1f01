// A device as a program uses it: its backend, its one pool, its budget.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "engine/backend.h"
#include "engine/device.h"
#include "engine/memory/pool.h"

namespace nf {

struct ContextOptions {
  Device device{};
  /// The device that a meta context stands for.
  Device target{};
  /// Bytes that may ever be reserved on the device; 0: as much as the device has.
  std::int64_t budget = 0;
  /// Threads inside CPU operators, at most kMaxThreads; 0: one per core that the process may use.
  int threads = 0;
  /// Whether the CPU uses oneDNN where it was built in (else Eigen).
  bool onednn = true;
  /// Whether a GPU's tensor cores may round f32 operands of convolutions and products to TF32.
  bool tf32 = false;
  /// Bytes of workspace up to which a GPU's libraries may take the fastest algorithm; 0: an eighth
  /// of the budget, at most 64 MiB.
  std::int64_t workspace_cap = 0;
  /// Whether training steps of one batch size are captured once and replayed, which the CPU does
  /// not; by default where that saves time, on cuda.
  std::optional<bool> graphs{};
};

/// Puts a backend of its own before the device's, as a profiler does.
using BackendDecorator = std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)>;

/// The cap that `options` mean.
std::int64_t workspace_cap(const ContextOptions& options);

/// Tensors hold a shared pointer to their context, so it outlives them.
class Context {
 public:
  /// Throws Error when the device does not exist or can't reserve the budget.
  static std::shared_ptr<Context> create(const ContextOptions& options,
                                         const BackendDecorator& decorate = {});

  Device device() const { return options_.device; }
  bool is_meta() const { return options_.device.kind == DeviceKind::meta; }
  /// Whether steps are captured and replayed here, on a meta context: there, where it stands for.
  bool graphs() const { return options_.graphs.value_or(false); }
  const ContextOptions& options() const { return options_; }
  Backend& backend() const { return *backend_; }
  Pool& pool() const { return *pool_; }

 private:
  Context(const ContextOptions& options, std::unique_ptr<Backend> backend);

  ContextOptions options_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Pool> pool_;
};

using ContextPtr = std::shared_ptr<Context>;

/// A context that computes nothing but asks for exactly the memory that one made from `options`
/// would: the planner's device. Its own budget is unlimited; workspaces are those of theirs.
ContextPtr make_meta_context(const ContextOptions& options);

}  // namespace nf
