// oneDNN behind the interface of onednn.h. Private: the only header that includes the library's.
#pragma once

#include <array>
#include <cstdint>
#include <dnnl.hpp>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/backends/cpu/onednn.h"
#include "engine/error.h"

namespace nf::cpu {

/// What a problem asks of the library, as numbers: the key of a cache.
template <std::size_t N>
struct NumbersHash {
  std::size_t operator()(const std::array<std::int64_t, N>& numbers) const {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const std::int64_t number : numbers)
      hash = (hash ^ static_cast<std::uint64_t>(number)) * 0x100000001b3U;
    return hash;
  }
};
template <std::size_t N, typename Value>
using NumbersMap = std::unordered_map<std::array<std::int64_t, N>, Value, NumbersHash<N>>;

/// A primitive and its operands. Asking for sizes makes the description only; the code is
/// generated at the first run.
struct DnnlCall {
  dnnl::primitive_desc_base description;
  dnnl::primitive primitive;
  std::unordered_map<int, dnnl::memory> operands;

  /// An operand whose address comes with each run.
  void declare(int argument, const dnnl::memory::desc& layout, const dnnl::engine& engine) {
    operands.emplace(argument, dnnl::memory(layout, engine, DNNL_MEMORY_NONE));
  }
  void bind(int argument, const void* data) {
    operands.at(argument).set_data_handle(const_cast<void*>(data));
  }
  std::int64_t scratchpad_bytes() const {
    return static_cast<std::int64_t>(description.scratchpad_desc().get_size());
  }
  void run(const dnnl::stream& stream, void* scratchpad);
};

struct DnnlConv2d {
  bool supported = false;
  bool reorders = false;           // the library wants the weights in another layout than ours
  std::int64_t weight_layout = 0;  // that the pass reads or writes
  DnnlCall pass;
  DnnlCall reorder;  // of the weights before the pass, of their gradient behind it
  DnnlCall add;      // of the weights' gradient to what is there
  std::int64_t weight_bytes = 0;
  std::int64_t scratchpad_bytes = 0;  // the most that one of the three wants
};

struct DnnlLinear {
  bool supported = false;
  DnnlCall product;
};

class OneDnnLibrary final : public OneDnn {
 public:
  explicit OneDnnLibrary(int threads);

  bool has_conv2d(const Conv2dProblem& problem, Pass pass) override;
  std::int64_t conv2d_workspace(const Conv2dProblem& problem, Pass pass, GradMode mode) override;
  void conv2d(const Conv2dProblem& problem, Pass pass, GradMode mode,
              const Conv2dOperands& operands, Workspace workspace) override;
  std::int64_t conv2d_weight_layout(const Conv2dProblem& problem) override;
  std::int64_t conv2d_weight_bytes(const Conv2dProblem& problem, std::int64_t layout) override;
  std::int64_t conv2d_reorder_workspace(const Conv2dProblem& problem, std::int64_t layout) override;
  void conv2d_reorder_weights(const Conv2dProblem& problem, std::int64_t layout, const float* w,
                              float* out, Workspace workspace) override;

  bool has_linear(const LinearProblem& problem, Pass pass, GradMode mode) override;
  std::int64_t linear_workspace(const LinearProblem& problem, Pass pass, GradMode mode) override;
  void linear(const LinearProblem& problem, Pass pass, GradMode mode,
              const LinearOperands& operands, Workspace workspace) override;

 private:
  DnnlConv2d& conv2d_entry(const Conv2dProblem& problem, Pass pass);
  /// The number of this layout, a new one where it is met for the first time.
  std::int64_t number_of(const dnnl::memory::desc& layout);
  dnnl::memory::desc numbered(const Conv2dProblem& problem, std::int64_t number) const;
  DnnlCall conv2d_reorder(const Conv2dProblem& problem, std::int64_t layout) const;
  DnnlLinear& linear_entry(const LinearProblem& problem, Pass pass, GradMode mode);

  /// Runs fn with the library's threads set. Throws Error for what the library throws.
  template <typename Problem, typename Fn>
  void guarded(const Problem& problem, Pass pass, const Fn& fn) const;

  int threads_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  NumbersMap<13, std::unique_ptr<DnnlConv2d>> conv2d_entries_;
  std::vector<dnnl::memory::desc> layouts_;  // of weights, number 1 first
  NumbersMap<5, std::unique_ptr<DnnlLinear>> linear_entries_;
};

/// A convolution's weights as Conv2dProblem has them, or as the library would.
dnnl::memory::desc plain_conv2d_weights(const Conv2dProblem& problem, bool any);

std::string describe(const Conv2dProblem& problem, Pass pass);
std::string describe(const LinearProblem& problem, Pass pass);

/// Sets the number of threads that the library takes for the calling thread, and restores it.
/// What it describes depends on that number, so it has to be the same for sizes and for runs.
class LibraryThreads {
 public:
  explicit LibraryThreads(int threads);
  ~LibraryThreads();
  LibraryThreads(const LibraryThreads&) = delete;
  LibraryThreads& operator=(const LibraryThreads&) = delete;

 private:
  int before_ = 0;
};

template <typename Problem, typename Fn>
void OneDnnLibrary::guarded(const Problem& problem, Pass pass, const Fn& fn) const {
  const LibraryThreads threads(threads_);
  try {
    fn();
  } catch (const dnnl::error& error) {
    fail("{}: oneDNN: {}", describe(problem, pass), error.what());
  }
}

}  // namespace nf::cpu
