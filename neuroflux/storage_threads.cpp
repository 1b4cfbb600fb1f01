// The storage queue where there is no io_uring: a thread for each request that may be in flight.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stop_token>
#include <thread>

#include "neuroflux/storage_queue.h"

namespace nf {
namespace {

class ThreadQueue : public StorageQueue {
 public:
  explicit ThreadQueue(std::int64_t depth) : StorageQueue(depth) {
    for (std::int64_t i = 0; i < depth; ++i)
      threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }
  ~ThreadQueue() override { drain(); }

  StorageEngine engine() const override { return StorageEngine::threads; }

 private:
  void submit(StorageTransfer* transfer) override {
    {
      const std::lock_guard lock(mutex_);
      asked_.push_back(transfer);
    }
    more_asked_.notify_one();
  }

  StorageTransfer* finished(bool wait) override {
    std::unique_lock lock(mutex_);
    if (wait) more_done_.wait(lock, [this] { return !done_.empty(); });
    if (done_.empty()) return nullptr;
    StorageTransfer* transfer = done_.front();
    done_.pop_front();
    return transfer;
  }

  void work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (more_asked_.wait(lock, stop, [this] { return !asked_.empty(); })) {
      StorageTransfer* transfer = asked_.front();
      asked_.pop_front();
      lock.unlock();
      transfer_now(*transfer);
      lock.lock();
      done_.push_back(transfer);
      more_done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any more_asked_;
  std::condition_variable more_done_;
  std::deque<StorageTransfer*> asked_, done_;
  std::vector<std::jthread> threads_;  // last, so that they end before what they use
};

}  // namespace

std::unique_ptr<StorageQueue> make_thread_queue(std::int64_t depth) {
  return std::make_unique<ThreadQueue>(depth);
}

}  // namespace nf
