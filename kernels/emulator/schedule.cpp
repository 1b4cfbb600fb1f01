// Warps and barriers: who runs, who waits for whom, and who can go on.
#include <algorithm>

#include "kernels/emulator/machine.h"

namespace nf::simt::emulator {

// Runs each lane as far as it gets. True where the warp can go on at once.
bool Machine::run_warp(std::size_t warp) {
  const std::size_t begin = warp * kWarp, end = std::min(begin + kWarp, count_);
  for (std::size_t i = begin; i < end; ++i) {
    if (threads_[i].state != State::ready) continue;
    current_ = i;
    running = this;
    fibers_.enter(i);
    running = nullptr;
    if (!fault_.empty()) {
      const std::string what = std::exchange(fault_, {});
      count_accesses();
      stop(what);
    }
  }
  count_accesses();
  return release_warp(warp);
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
                 threads_[j].meeting == thread.meeting;
      present |= bit;
      if (threads_[j].predicate) predicates |= bit;
    }
    if (!complete) continue;
    serve(begin, end, present, predicates, thread.meeting, thread.mask);
    if (thread.meeting == Meeting::barrier) orders_[warp].meet(present);
    released = true;
  }
  return released;
}

// Hands each lane present what the operation gives it.
void Machine::serve(std::size_t begin, std::size_t end, unsigned present, unsigned predicates,
                    Meeting meeting, unsigned mask) {
  const auto takes_part = [&](std::size_t lane) { return (present >> lane & 1U) != 0; };
  for (std::size_t j = begin; j < end; ++j) {
    if (!takes_part(j - begin)) continue;
    if (meeting != Meeting::shuffle) {
      threads_[j].result = (std::uint64_t{present} << 32) | predicates;
      continue;
    }
    const int source = threads_[j].source;
    if (source < 0 || source >= static_cast<int>(kWarp) ||
        !takes_part(static_cast<std::size_t>(source)))
      stop(who(j, block_index_) + " shuffles from lane " + std::to_string(source) +
           ", which takes no part (mask " + std::to_string(mask) + ")");
    threads_[j].result = threads_[begin + static_cast<std::size_t>(source)].value;
  }
  for (std::size_t j = begin; j < end; ++j)
    if (takes_part(j - begin)) threads_[j].state = State::ready;
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
  start_epoch();
  return true;
}

void Machine::start_epoch() {
  for (std::size_t warp = 0; warp * kWarp < count_; ++warp) orders_[warp].start();
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
          other.meeting == thread.meeting)
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

}  // namespace nf::simt::emulator
