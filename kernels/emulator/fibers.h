// Threads of a block as fibers: their stacks, and the switches between them and the scheduler.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nf::simt::emulator {

/// Fibers that all run `main`, which never returns. One runs at a time, on the thread that enters
/// it.
class Fibers {
 public:
  using Main = void (*)();

  /// Throws KernelError where there is no memory for the stacks.
  Fibers(std::size_t count, Main main);
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  /// Runs fiber `i` from where it left, or from the start of `main`, until it leaves.
  void enter(std::size_t i);
  /// Called by a fiber: back to who entered it.
  void leave();
  /// All start anew at their next entry. What lies on their stacks is not destroyed.
  void abandon();
  /// Whether `address` lies on the stack of a fiber.
  bool own(std::uintptr_t address) const {
    return address - reinterpret_cast<std::uintptr_t>(stacks_) < stacks_bytes_;
  }

 private:
  using Context = boost::context::detail::fcontext_t;
  static void start(boost::context::detail::transfer_t from);
  std::byte* stack(std::size_t i) const;

  Main main_;
  std::vector<Context> fibers_;
  Context outside_ = nullptr;
  // Each stack above a page that may not be touched.
  std::byte* stacks_;
  std::size_t stacks_bytes_;
  // For AddressSanitizer, which is told of each switch: the stack of who enters.
  const void* outside_stack_ = nullptr;
  std::size_t outside_bytes_ = 0;
};

}  // namespace nf::simt::emulator
