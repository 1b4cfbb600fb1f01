// Launches: blocks one after another, their threads as fibers, warps greedily to their barriers.
#include "kernels/emulator/emulator.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <boost/context/detail/fcontext.hpp>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>

#include "kernels/emulator/accesses.h"
#include "kernels/philox.h"
#define NF_TARGET simt
#include "kernels/simt.h"

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace nf::simt::emulator {
namespace {

namespace context = boost::context::detail;

constexpr int kWarp = 32;
constexpr std::int64_t kMostThreads = 1024;
constexpr std::size_t kSharedBytes = 48 * 1024;
constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kPageBytes = 4096;
// Around each variable of shared memory, so that an access just beside one is caught.
constexpr std::size_t kSharedGap = 64;

enum class State : std::uint8_t { ready, at_barrier, at_warp, done };

struct Thread {
  context::fcontext_t fiber = nullptr;
  State state = State::done;
  Index3 index{};
  // What it waits for and brings.
  Vote vote = Vote::none;
  int line = 0;
  bool predicate = false;
  unsigned mask = 0;
  bool shuffles = false;
  int source = 0;
  std::uint64_t value = 0;
  std::uint64_t result = 0;
};

struct SharedVariable {
  const void* tag;
  std::size_t begin, bytes;
};

// Stacks of all threads of a block, each above a page that may not be touched.
class Stacks {
 public:
  Stacks() {
    const std::size_t bytes = static_cast<std::size_t>(kMostThreads) * kStride;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw KernelError("emulator: no memory for the threads' stacks");
    base_ = static_cast<std::byte*>(memory);
    for (std::size_t i = 0; i < static_cast<std::size_t>(kMostThreads); ++i)
      mprotect(base_ + i * kStride, kPageBytes, PROT_NONE);
  }
  void* top(std::size_t i) const { return base_ + (i + 1) * kStride; }
  std::uintptr_t begin() const { return reinterpret_cast<std::uintptr_t>(base_); }
  std::uintptr_t bytes() const { return static_cast<std::uintptr_t>(kMostThreads) * kStride; }

 private:
  static constexpr std::size_t kStride = kStackBytes + kPageBytes;
  std::byte* base_;
};

// Memory that kernels may touch.
class Ranges {
 public:
  void add(std::uintptr_t begin, std::uintptr_t bytes) {
    const std::lock_guard lock(mutex_);
    ranges_[begin] = begin + bytes;
  }
  void remove(std::uintptr_t begin) {
    const std::lock_guard lock(mutex_);
    ranges_.erase(begin);
  }
  /// The range around `address`: begin and end; {0, 0} for none.
  std::pair<std::uintptr_t, std::uintptr_t> around(std::uintptr_t address) {
    const std::lock_guard lock(mutex_);
    auto next = ranges_.upper_bound(address);
    if (next == ranges_.begin()) return {0, 0};
    --next;
    if (address >= next->second) return {0, 0};
    return *next;
  }
  /// The nearest range that ends at or below `address`; {0, 0} for none.
  std::pair<std::uintptr_t, std::uintptr_t> below(std::uintptr_t address) {
    const std::lock_guard lock(mutex_);
    auto next = ranges_.upper_bound(address);
    if (next == ranges_.begin()) return {0, 0};
    return *--next;
  }

 private:
  std::mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> ranges_;
};

Ranges& ranges() {
  static Ranges all;
  return all;
}

std::string text(const Index3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

std::string text(const Extent& extent) {
  return "(" + std::to_string(extent.x) + ", " + std::to_string(extent.y) + ", " +
         std::to_string(extent.z) + ")";
}

Index3 index_in(std::int64_t linear, const Extent& extent) {
  return {static_cast<unsigned>(linear % extent.x),
          static_cast<unsigned>(linear / extent.x % extent.y),
          static_cast<unsigned>(linear / extent.x / extent.y)};
}

Index3 as_index(const Extent& extent) {
  return {static_cast<unsigned>(extent.x), static_cast<unsigned>(extent.y),
          static_cast<unsigned>(extent.z)};
}

// All that a launch needs, kept from one to the next.
class Machine {
 public:
  void run(const char* name, const Extent& grid, const Extent& block, std::int64_t shared_bytes,
           const Body& body);

  // Called by the current thread of the kernel.
  Thread& current() { return threads_[current_]; }
  const Index3& block_index() const { return block_index_; }
  const Extent& grid() const { return grid_; }
  const Extent& block() const { return block_; }
  int lane() const { return static_cast<int>(current_ % kWarp); }
  std::string who_is_running() const { return who(current_, block_index_); }
  void wait(State state) {
    current().state = state;
    switch_out();
  }
  void* shared(const void* tag, std::size_t bytes, std::size_t alignment);
  void* dynamic_shared();
  void access(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
              const void* instruction);
  /// Ends the launch; never returns to the kernel.
  [[noreturn]] void fault(const std::string& what);

  Options options;
  std::vector<KernelBehaviour> seen;

 private:
  static void fiber_main(context::transfer_t from);
  void switch_out() {
    const context::transfer_t back = context::jump_fcontext(scheduler_, nullptr);
    scheduler_ = back.fctx;
  }
  void check_launch(std::int64_t shared_bytes) const;
  void run_block(std::int64_t block, std::mt19937_64& random);
  bool run_warp(std::size_t warp);
  bool release_warp(std::size_t warp);
  bool release_block();
  void report_deadlock();
  void flush();
  std::string who(std::size_t thread, const Index3& block) const {
    return "thread " + text(threads_[thread].index) + " of block " + text(block);
  }
  [[noreturn]] void stop(const std::string& what) {
    for (Thread& thread : threads_) thread.fiber = nullptr;
    throw KernelFault(std::string(name_) + ": " + what);
  }
  void check_bounds(std::uintptr_t address, std::uint32_t bytes, AccessKind kind);
  void check_shared(std::uintptr_t address, std::uint32_t bytes, AccessKind kind);
  KernelBehaviour& total();

  const char* name_ = "";
  Extent grid_, block_;
  Body body_{};
  std::size_t count_ = 0;  // threads of a block
  std::size_t dynamic_bytes_ = 0;
  std::vector<Thread> threads_{static_cast<std::size_t>(kMostThreads)};
  std::array<std::uint16_t, kMostThreads / kWarp> warp_epochs_{};
  std::size_t current_ = 0;
  Index3 block_index_{};
  std::uint32_t block_number_ = 0;
  std::uint16_t epoch_ = 0;
  std::uint64_t launches_ = 0;
  std::int64_t barriers_ = 0;
  context::fcontext_t scheduler_ = nullptr;
  std::string fault_;
  Stacks stacks_;

  alignas(256) std::array<std::byte, kSharedBytes + 64 * kSharedGap> shared_{};
  std::vector<SharedVariable> variables_;
  std::size_t shared_used_ = 0, shared_asked_ = 0, most_shared_ = 0;

  // The launching thread's stack: parameters live there.
  std::uintptr_t caller_begin_ = 0, caller_end_ = 0;
  std::array<std::pair<std::uintptr_t, std::uintptr_t>, 8> near_{};
  std::size_t next_near_ = 0;

  RaceDetector global_races_, shared_races_;
  BehaviourCounter counter_;
  std::vector<std::vector<Access>> lanes_{kWarp};  // of the warp that runs
};

Machine& machine() {
  static Machine instance;
  return instance;
}

std::mutex& launch_mutex() {
  static std::mutex mutex;
  return mutex;
}

// Set while this host thread runs a kernel: hooks of other threads, and of host code, do nothing.
thread_local Machine* running = nullptr;

std::pair<std::uintptr_t, std::uintptr_t> stack_of_this_thread() {
  pthread_attr_t attributes;
  void* base = nullptr;
  std::size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &base, &bytes);
  pthread_attr_destroy(&attributes);
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  return {begin, begin + bytes};
}

void Machine::check_launch(std::int64_t shared_bytes) const {
  const auto refuse = [&](const std::string& rule) {
    throw KernelError(std::string(name_) + "<<<" + text(grid_) + ", " + text(block_) + ", " +
                      std::to_string(shared_bytes) + ">>>: " + rule);
  };
  if (std::min({grid_.x, grid_.y, grid_.z, block_.x, block_.y, block_.z}) < 1)
    refuse("a grid and a block have at least 1 of each");
  if (grid_.x > 0x7fffffff || grid_.y > 65535 || grid_.z > 65535)
    refuse("a grid has at most 2147483647 x 65535 x 65535 blocks");
  if (block_.x > kMostThreads || block_.y > kMostThreads || block_.z > 64 ||
      block_.x * block_.y * block_.z > kMostThreads)
    refuse("a block has at most 1024 threads, 64 of them along z");
  if (shared_bytes < 0 || shared_bytes > static_cast<std::int64_t>(kSharedBytes))
    refuse("a block has at most 49152 bytes of shared memory");
}

KernelBehaviour& Machine::total() {
  const auto known = std::find_if(seen.begin(), seen.end(),
                                  [&](const KernelBehaviour& k) { return k.name == name_; });
  if (known != seen.end()) return *known;
  seen.emplace_back().name = name_;
  return seen.back();
}

void Machine::run(const char* name, const Extent& grid, const Extent& block,
                  std::int64_t shared_bytes, const Body& body) {
  name_ = name;
  grid_ = grid;
  block_ = block;
  body_ = body;
  check_launch(shared_bytes);
  count_ = static_cast<std::size_t>(block.x * block.y * block.z);
  dynamic_bytes_ = static_cast<std::size_t>(shared_bytes);
  thread_local const std::pair<std::uintptr_t, std::uintptr_t> stack = stack_of_this_thread();
  std::tie(caller_begin_, caller_end_) = stack;
  near_.fill({0, 0});
  global_races_.start();
  counter_.start_launch();
  for (std::size_t i = 0; i < count_; ++i)
    threads_[i].index = index_in(static_cast<std::int64_t>(i), block);

  const std::int64_t blocks = grid.x * grid.y * grid.z;
  const Philox4 draw = philox(options.seed, launches_++, 0);
  std::mt19937_64 random((std::uint64_t{draw.v[0]} << 32) | draw.v[1]);
  barriers_ = 0;
  most_shared_ = dynamic_bytes_;
  if (!options.only.empty()) {
    for (const std::int64_t block_number : options.only) {
      const std::int64_t b = block_number < 0 ? blocks + block_number : block_number;
      if (b >= 0 && b < blocks) run_block(b, random);
    }
  } else {
    // A permutation of any length: steps of a number that shares no factor with it.
    std::int64_t step =
        static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(blocks)) | 1;
    while (std::gcd(step, blocks) != 1) step += 2;
    std::int64_t b = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(blocks));
    step %= blocks;
    for (std::int64_t i = 0; i < blocks; ++i) {
      run_block(b, random);
      b += step;
      if (b >= blocks) b -= blocks;
    }
  }
  if (!options.behaviour) return;
  KernelBehaviour& sum = total();
  ++sum.launches;
  sum.threads += blocks * static_cast<std::int64_t>(count_);
  sum.footprint_bytes += counter_.footprint_bytes();
  sum.barriers += barriers_;
  sum.shared_bytes = std::max(sum.shared_bytes, static_cast<std::int64_t>(most_shared_));
}

void Machine::fiber_main(context::transfer_t from) {
  Machine& m = machine();
  m.scheduler_ = from.fctx;
  while (true) {
    m.body_.call(m.body_.closure);
    m.wait(State::done);
  }
}

void Machine::run_block(std::int64_t block, std::mt19937_64& random) {
  block_number_ = static_cast<std::uint32_t>(block);
  block_index_ = index_in(block, grid_);
  epoch_ = 0;
  warp_epochs_.fill(0);
  variables_.clear();
  shared_used_ = kSharedGap;
  shared_asked_ = 0;
  // Whoever reads before it writes gets a NaN.
  std::memset(shared_.data(), 0xff, shared_.size());
  if (dynamic_bytes_ > 0) shared(nullptr, dynamic_bytes_, 256);
  if (options.races) shared_races_.start();
  for (std::size_t i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    if (thread.fiber == nullptr)
      thread.fiber = context::make_fcontext(stacks_.top(i), kStackBytes, &Machine::fiber_main);
    thread.state = State::ready;
  }
  const std::size_t warps = (count_ + kWarp - 1) / kWarp;
  std::array<std::size_t, kMostThreads / kWarp> order{};
  std::iota(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(warps), std::size_t{0});
  do {
    std::shuffle(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(warps), random);
    for (std::size_t i = 0; i < warps; ++i) {
      while (run_warp(order[i])) {
      }
    }
  } while (release_block());
}

// Runs each lane as far as it gets. True where the warp can go on at once.
bool Machine::run_warp(std::size_t warp) {
  const std::size_t begin = warp * kWarp, end = std::min(begin + kWarp, count_);
  for (std::size_t i = begin; i < end; ++i) {
    Thread& thread = threads_[i];
    if (thread.state != State::ready) continue;
    current_ = i;
    running = this;
    const context::transfer_t back = context::jump_fcontext(thread.fiber, nullptr);
    running = nullptr;
    thread.fiber = back.fctx;
    if (!fault_.empty()) {
      const std::string what = std::exchange(fault_, {});
      flush();
      stop(what);
    }
  }
  flush();
  return release_warp(warp);
}

void Machine::flush() {
  if (!options.behaviour) return;
  const auto base = reinterpret_cast<std::uintptr_t>(shared_.data());
  counter_.count(lanes_, base, base + shared_.size(), total());
  for (std::vector<Access>& lane : lanes_) lane.clear();
}

// Lets lanes go on whose warp operation is complete.
bool Machine::release_warp(std::size_t warp) {
  const std::size_t begin = warp * kWarp, end = std::min(begin + kWarp, count_);
  bool released = false;
  for (std::size_t i = begin; i < end; ++i) {
    Thread& thread = threads_[i];
    if (thread.state != State::at_warp) continue;
    unsigned present = 0, predicates = 0;
    bool complete = true;
    for (std::size_t j = begin; j < end && complete; ++j) {
      const unsigned bit = 1U << (j - begin);
      if ((thread.mask & bit) == 0 || threads_[j].state == State::done) continue;
      complete = threads_[j].state == State::at_warp && threads_[j].mask == thread.mask &&
                 threads_[j].shuffles == thread.shuffles;
      present |= bit;
      if (threads_[j].predicate) predicates |= bit;
    }
    if (!complete) continue;
    const unsigned mask = thread.mask;
    const bool shuffles = thread.shuffles;
    for (std::size_t j = begin; j < end; ++j) {
      if ((present >> (j - begin) & 1U) == 0) continue;
      if (!shuffles) {
        threads_[j].result = (std::uint64_t{present} << 32) | predicates;
        continue;
      }
      const int source = threads_[j].source;
      if (source < 0 || source >= kWarp || (present >> source & 1U) == 0)
        stop(who(j, block_index_) + " shuffles from lane " + std::to_string(source) +
             ", which takes no part (mask " + std::to_string(mask) + ")");
      threads_[j].result = threads_[begin + static_cast<std::size_t>(source)].value;
    }
    for (std::size_t j = begin; j < end; ++j)
      if ((present >> (j - begin) & 1U) != 0) threads_[j].state = State::ready;
    ++warp_epochs_[warp];
    released = true;
  }
  return released;
}

// Between two passes over the warps. True where there is more to run.
bool Machine::release_block() {
  const Thread* first = nullptr;
  std::size_t first_index = 0;
  std::size_t done = 0, waiting = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    done += thread.state == State::done;
    if (thread.state != State::at_barrier) continue;
    ++waiting;
    if (first == nullptr) {
      first = &thread;
      first_index = i;
    }
  }
  if (done == count_) return false;
  if (first == nullptr || done + waiting < count_) report_deadlock();
  const auto barrier = [&] { return "__syncthreads in line " + std::to_string(first->line); };
  if (done > 0) {
    const auto ended = std::find_if(threads_.begin(), threads_.end(),
                                    [](const Thread& t) { return t.state == State::done; });
    stop("divergent barrier: " + who(first_index, block_index_) + " waits at " + barrier() +
         ", but " + who(static_cast<std::size_t>(ended - threads_.begin()), block_index_) +
         " has ended");
  }
  int votes = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    if (threads_[i].line != first->line || threads_[i].vote != first->vote)
      stop("divergent barrier: " + who(first_index, block_index_) + " waits at " + barrier() +
           ", but " + who(i, block_index_) + " at that in line " +
           std::to_string(threads_[i].line));
    votes += threads_[i].predicate ? 1 : 0;
  }
  const auto all = static_cast<int>(count_);
  const int result = first->vote == Vote::any   ? (votes > 0 ? 1 : 0)
                     : first->vote == Vote::all ? (votes == all ? 1 : 0)
                                                : votes;
  for (std::size_t i = 0; i < count_; ++i) {
    threads_[i].result = static_cast<std::uint64_t>(result);
    threads_[i].state = State::ready;
  }
  ++epoch_;
  ++barriers_;
  warp_epochs_.fill(0);
  return true;
}

void Machine::report_deadlock() {
  for (std::size_t i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state != State::at_warp) continue;
    const std::size_t begin = i / kWarp * kWarp;
    for (std::size_t j = begin; j < std::min(begin + kWarp, count_); ++j) {
      const Thread& other = threads_[j];
      if ((thread.mask >> (j - begin) & 1U) == 0 || other.state == State::done) continue;
      if (other.state == State::at_warp && other.mask == thread.mask &&
          other.shuffles == thread.shuffles)
        continue;
      stop("deadlock: " + who(i, block_index_) + " waits in a warp operation for " +
           who(j, block_index_) + ", which waits " +
           (other.state == State::at_barrier
                ? "at __syncthreads in line " + std::to_string(other.line)
                : "in another warp operation"));
    }
  }
  stop("deadlock: nothing can go on");
}

void* Machine::shared(const void* tag, std::size_t bytes, std::size_t alignment) {
  for (const SharedVariable& variable : variables_)
    if (variable.tag == tag) return shared_.data() + variable.begin;
  shared_asked_ = (shared_asked_ + alignment - 1) / alignment * alignment + bytes;
  shared_used_ = (shared_used_ + alignment - 1) / alignment * alignment;
  if (shared_asked_ > kSharedBytes || shared_used_ + bytes + kSharedGap > shared_.size())
    fault("a block has at most " + std::to_string(kSharedBytes) + " bytes of shared memory, " +
          std::to_string(shared_asked_) + " are asked for");
  const std::size_t begin = shared_used_;
  variables_.push_back({tag, begin, bytes});
  shared_used_ += bytes + kSharedGap;
  most_shared_ = std::max(most_shared_, shared_asked_);
  return shared_.data() + begin;
}

void* Machine::dynamic_shared() {
  if (dynamic_bytes_ == 0) fault("uses dynamic shared memory, but the launch asked for none");
  return shared_.data() + variables_.front().begin;
}

void Machine::fault(const std::string& what) {
  fault_ = what;
  switch_out();
  std::abort();  // nobody comes back to a fiber that has faulted
}

void Machine::check_bounds(std::uintptr_t address, std::uint32_t bytes, AccessKind kind) {
  for (const auto& [begin, end] : near_)
    if (address >= begin && address + bytes <= end) return;
  const auto range = ranges().around(address);
  if (range.second != 0 && address + bytes <= range.second) {
    near_[next_near_++ % near_.size()] = range;
    return;
  }
  std::ostringstream out;
  out << who(current_, block_index_) << (kind == AccessKind::read ? " reads " : " writes ") << bytes
      << " bytes outside of the device's memory at 0x" << std::hex << address << std::dec;
  const auto near = ranges().below(address);
  if (near.second != 0)
    out << ", " << static_cast<std::int64_t>(address + bytes - near.second)
        << " bytes beyond the end of the nearest range of " << near.second - near.first;
  fault(out.str());
}

void Machine::check_shared(std::uintptr_t address, std::uint32_t bytes, AccessKind kind) {
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(shared_.data());
  for (const SharedVariable& variable : variables_)
    if (offset >= variable.begin && offset + bytes <= variable.begin + variable.bytes) return;
  std::string nearest;
  for (const SharedVariable& variable : variables_)
    if (offset + bytes > variable.begin)
      nearest = ", beyond a variable of " + std::to_string(variable.bytes) + " bytes, at byte " +
                std::to_string(offset - variable.begin);
  fault(who(current_, block_index_) + (kind == AccessKind::read ? " reads " : " writes ") +
        std::to_string(bytes) + " bytes out of range in shared memory" + nearest);
}

void Machine::access(std::uintptr_t address, std::uint32_t bytes, AccessKind kind,
                     const void* instruction) {
  if (address - stacks_.begin() < stacks_.bytes()) return;
  if (address >= caller_begin_ && address < caller_end_) return;
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(shared_.data());
  const bool is_shared = offset < shared_.size();
  if (is_shared)
    check_shared(address, bytes, kind);
  else if (options.bounds)
    check_bounds(address, bytes, kind);
  if (options.races) {
    const Moment now{.block = block_number_,
                     .epoch = epoch_,
                     .warp_epoch = warp_epochs_[current_ / kWarp],
                     .thread = static_cast<std::uint16_t>(current_)};
    RaceDetector::Conflict conflict;
    if ((is_shared ? shared_races_ : global_races_).note(address, bytes, kind, now, conflict)) {
      const Index3 other_block = index_in(conflict.other.block, grid_);
      fault("race: " + who(current_, block_index_) +
            (kind == AccessKind::read ? " reads " : " writes ") + std::to_string(bytes) +
            " bytes of " + (is_shared ? "shared" : "global") + " memory that " +
            who(conflict.other.thread, other_block) + (conflict.other_wrote ? " wrote" : " read") +
            ", with no barrier between");
    }
  }
  if (options.behaviour) lanes_[current_ % kWarp].push_back({instruction, address, bytes, kind});
}

// The emulator's own doings are no kernel's: templates that kernels were compiled with may be used
// here too.
class Unwatched {
 public:
  Unwatched() : before_(std::exchange(running, nullptr)) {}
  ~Unwatched() { running = before_; }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;

 private:
  Machine* before_;
};

void on_access(const void* address, std::size_t bytes, AccessKind kind, const void* instruction) {
  if (running == nullptr) return;
  const Unwatched unwatched;
  machine().access(reinterpret_cast<std::uintptr_t>(address), static_cast<std::uint32_t>(bytes),
                   kind, instruction);
}

}  // namespace

void set_options(const Options& options) {
  const std::lock_guard lock(launch_mutex());
  machine().options = options;
}

Options options() {
  const std::lock_guard lock(launch_mutex());
  return machine().options;
}

void add_memory(const void* address, std::int64_t bytes) {
  ranges().add(reinterpret_cast<std::uintptr_t>(address), static_cast<std::uintptr_t>(bytes));
}

void remove_memory(const void* address) {
  ranges().remove(reinterpret_cast<std::uintptr_t>(address));
}

namespace {

thread_local Calls* recorded_calls = nullptr;

// CUDA's limit of 4 KiB and the kernel's address.
constexpr std::size_t kMostParameters = 4096 + sizeof(void*);

}  // namespace

void record_to(Calls* calls) { recorded_calls = calls; }
Calls* recording() { return recorded_calls; }

std::vector<KernelBehaviour> behaviour() {
  const std::lock_guard lock(launch_mutex());
  return machine().seen;
}

void reset_behaviour() {
  const std::lock_guard lock(launch_mutex());
  machine().seen.clear();
}

void run(const char* name, Extent grid, Extent block, std::int64_t shared_bytes, Body body) {
  if (body.bytes > kMostParameters)
    throw KernelError(std::string(name) + ": parameters of " + std::to_string(body.bytes) +
                      " bytes, a launch takes " + std::to_string(kMostParameters));
  if (recorded_calls != nullptr) {
    const auto* bytes = static_cast<const std::byte*>(body.closure);
    recorded_calls->emplace_back([=, copy = std::vector<std::byte>(bytes, bytes + body.bytes)] {
      // Kernels may read their parameters on the launching thread's stack alone.
      alignas(std::max_align_t) std::byte parameters[kMostParameters];
      std::copy(copy.begin(), copy.end(), parameters);
      run(name, grid, block, shared_bytes, {body.call, parameters, body.bytes});
    });
    return;
  }
  const std::lock_guard lock(launch_mutex());
  machine().run(name, grid, block, shared_bytes, body);
}

Index3 thread_index() noexcept { return machine().current().index; }
Index3 block_index() noexcept { return machine().block_index(); }
Index3 block_size() noexcept { return as_index(machine().block()); }
Index3 grid_size() noexcept { return as_index(machine().grid()); }

void* shared_variable(const void* tag, std::size_t bytes, std::size_t alignment) {
  const Unwatched unwatched;
  return machine().shared(tag, bytes, alignment);
}

void* dynamic_shared() {
  const Unwatched unwatched;
  return machine().dynamic_shared();
}

namespace {

[[noreturn]] void misaligned(std::size_t bytes, const char* how) {
  const Unwatched unwatched;
  Machine& m = machine();
  m.fault(m.who_is_running() + ": a vector of " + std::to_string(bytes) + " bytes is " + how +
          " an address that is no multiple of it");
}

}  // namespace

void read_together(void* value, const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) misaligned(bytes, "read from");
  on_access(address, bytes, AccessKind::read, __builtin_return_address(0));
  std::memcpy(value, address, bytes);
}

void write_together(void* address, const void* value, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) misaligned(bytes, "written to");
  on_access(address, bytes, AccessKind::write, __builtin_return_address(0));
  std::memcpy(address, value, bytes);
}

void atomic_access(const void* address, std::size_t bytes) {
  on_access(address, bytes, AccessKind::atomic, __builtin_return_address(0));
}

int sync_threads(Vote vote, bool predicate, int line) {
  Thread& thread = machine().current();
  thread.vote = vote;
  thread.predicate = predicate;
  thread.line = line;
  machine().wait(State::at_barrier);
  return static_cast<int>(thread.result);
}

namespace {

std::uint64_t meet(unsigned mask, bool predicate, bool shuffles, std::uint64_t value, int source) {
  Machine& m = machine();
  if ((mask >> m.lane() & 1U) == 0) {
    const Unwatched unwatched;
    m.fault(m.who_is_running() + " calls a warp operation whose mask leaves it out");
  }
  Thread& thread = m.current();
  thread.mask = mask;
  thread.predicate = predicate;
  thread.shuffles = shuffles;
  thread.value = value;
  thread.source = source;
  m.wait(State::at_warp);
  return thread.result;
}

}  // namespace

unsigned sync_warp(unsigned mask, bool predicate) {
  return static_cast<unsigned>(meet(mask, predicate, false, 0, 0));
}

bool all_lanes(unsigned mask, bool predicate) {
  const std::uint64_t result = meet(mask, predicate, false, 0, 0);
  return static_cast<unsigned>(result) == static_cast<unsigned>(result >> 32);
}

std::uint64_t exchange(unsigned mask, std::uint64_t value, int source) {
  return meet(mask, false, true, value, source);
}

int lane() { return machine().lane(); }

}  // namespace nf::simt::emulator

// What g++ calls before each access of code compiled with -fsanitize=thread.
extern "C" {
using nf::simt::emulator::AccessKind;
using nf::simt::emulator::on_access;
#define NF_HOOKS(bytes)                                                  \
  void __tsan_read##bytes(void* p) {                                     \
    on_access(p, bytes, AccessKind::read, __builtin_return_address(0));  \
  }                                                                      \
  void __tsan_write##bytes(void* p) {                                    \
    on_access(p, bytes, AccessKind::write, __builtin_return_address(0)); \
  }
NF_HOOKS(1)
NF_HOOKS(2)
NF_HOOKS(4)
NF_HOOKS(8)
NF_HOOKS(16)
#undef NF_HOOKS
#define NF_HOOKS(bytes)                                                  \
  void __tsan_unaligned_read##bytes(void* p) {                           \
    on_access(p, bytes, AccessKind::read, __builtin_return_address(0));  \
  }                                                                      \
  void __tsan_unaligned_write##bytes(void* p) {                          \
    on_access(p, bytes, AccessKind::write, __builtin_return_address(0)); \
  }
NF_HOOKS(2)
NF_HOOKS(4)
NF_HOOKS(8)
NF_HOOKS(16)
#undef NF_HOOKS
void __tsan_read_range(void* p, unsigned long bytes) {
  on_access(p, bytes, AccessKind::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long bytes) {
  on_access(p, bytes, AccessKind::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
