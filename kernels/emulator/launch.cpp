// Launches: a grid's blocks one after another, in an order drawn from the seed.
#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <set>
#include <vector>

#include "kernels/emulator/machine.h"
#include "kernels/philox.h"

namespace nf::simt::emulator {

constinit thread_local Machine* running = nullptr;

std::mutex& launch_mutex() {
  static std::mutex mutex;
  return mutex;
}

namespace {

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

}  // namespace

void Machine::run(const char* name, const Extent& grid, const Extent& block,
                  std::int64_t shared_bytes, const Body& body) {
  check_launch(name, grid, block, shared_bytes);
  name_ = name;
  grid_ = grid;
  block_ = block;
  body_ = body;
  count_ = static_cast<std::size_t>(block.x * block.y * block.z);
  thread_local const std::pair<std::uintptr_t, std::uintptr_t> stack = stack_of_this_thread();
  std::tie(caller_begin_, caller_end_) = stack;
  near_.fill({0, 0});
  global_races_.start();
  counter_.start_launch();
  shared_.start_launch(static_cast<std::size_t>(shared_bytes));
  barriers_ = 0;
  for (std::size_t i = 0; i < count_; ++i)
    threads_[i].index = index_in(static_cast<std::int64_t>(i), block);

  const std::int64_t blocks = grid.x * grid.y * grid.z;
  run_blocks(blocks);
  if (!options.behaviour) return;
  KernelBehaviour& sum = total();
  ++sum.launches;
  sum.threads += blocks * static_cast<std::int64_t>(count_);
  sum.footprint_bytes += counter_.footprint_bytes();
  sum.barriers += barriers_;
  sum.shared_bytes = std::max(sum.shared_bytes, shared_.most_bytes());
}

void Machine::run_blocks(std::int64_t blocks) {
  const Philox4 draw = philox(options.seed, launches_++, 0);
  std::mt19937_64 random((std::uint64_t{draw.v[0]} << 32) | draw.v[1]);
  if (!options.only.empty()) {
    // Of a small grid, the first may be the last: once.
    std::set<std::int64_t> chosen;
    for (const std::int64_t number : options.only) {
      const std::int64_t b = number < 0 ? blocks + number : number;
      if (b >= 0 && b < blocks && chosen.insert(b).second) run_block(b, random);
    }
    return;
  }
  // A permutation of any length: steps of a number that shares no factor with it.
  std::int64_t step = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(blocks)) | 1;
  while (std::gcd(step, blocks) != 1) step += 2;
  std::int64_t b = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(blocks));
  step %= blocks;
  for (std::int64_t i = 0; i < blocks; ++i) {
    run_block(b, random);
    b += step;
    if (b >= blocks) b -= blocks;
  }
}

void Machine::run_block(std::int64_t block, std::mt19937_64& random) {
  block_number_ = static_cast<std::uint32_t>(block);
  block_index_ = index_in(block, grid_);
  epoch_ = 0;
  start_epoch();
  shared_.start_block();
  if (options.races) shared_races_.start();
  for (std::size_t i = 0; i < count_; ++i) threads_[i].state = State::ready;
  const std::size_t warps = (count_ + kWarp - 1) / kWarp;
  std::array<std::size_t, kMostWarps> order{};
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(warps);
  std::iota(order.begin(), end, std::size_t{0});
  do {
    std::shuffle(order.begin(), end, random);
    for (std::size_t i = 0; i < warps; ++i) {
      while (run_warp(order[i])) {
      }
    }
  } while (release_block());
}

// What each fiber does: one kernel's thread after another.
void Machine::run_body() {
  Machine& m = machine();
  while (true) {
    m.body_.call(m.body_.closure);
    m.wait(State::done);
  }
}

KernelBehaviour& Machine::total() {
  const auto known = std::find_if(seen.begin(), seen.end(),
                                  [&](const KernelBehaviour& k) { return k.name == name_; });
  if (known != seen.end()) return *known;
  seen.emplace_back().name = name_;
  return seen.back();
}

void Machine::stop(const std::string& what) {
  fibers_.abandon();
  throw KernelFault(std::string(name_) + ": " + what);
}

namespace {

thread_local Calls* recorded_calls = nullptr;

// CUDA's limit of 4 KiB and the kernel's address.
constexpr std::size_t kMostParameters = 4096 + sizeof(void*);

}  // namespace

void record_to(Calls* calls) { recorded_calls = calls; }
Calls* recording() { return recorded_calls; }

void set_options(const Options& options) {
  const std::lock_guard lock(launch_mutex());
  machine().options = options;
}

Options options() {
  const std::lock_guard lock(launch_mutex());
  return machine().options;
}

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

}  // namespace nf::simt::emulator
