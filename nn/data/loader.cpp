#include "nn/data/loader.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/timer.h"

namespace nf::nn {
namespace {

/// Long enough to make the lock cheap, short enough to share a batch and to cancel at once.
constexpr std::int64_t kTaskSamples = 16;

}  // namespace

Loader::Loader(std::shared_ptr<const ImageSet> set, std::vector<std::int64_t> indices,
               Transform transform, const LoaderOptions& options)
    : set_(std::move(set)),
      indices_(std::move(indices)),
      transform_(std::move(transform)),
      options_(options) {
  NF_CHECK(set_ != nullptr, "loader: an image set is needed, got none");
  check_image_set(*set_);
  NF_CHECK(options_.threads >= 1 && options_.prefetch_batches >= 1,
           "loader: threads and prefetch_batches must be at least 1, are {} and {}",
           options_.threads, options_.prefetch_batches);
  for (const std::int64_t index : indices_)
    NF_CHECK(index >= 0 && index < set_->count, "loader: index must be in [0, {}), is {}",
             set_->count, index);
  sample_shape_ = transform_.output_shape(*set_);
  sample_size_ = sample_shape_.numel();
  for (int i = 0; i < options_.threads; ++i)
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

void Loader::start(std::int64_t batch, std::int64_t epoch) {
  NF_CHECK(batch >= 1 && epoch >= 0,
           "loader: batch must be positive and epoch not negative, are {} and {}", batch, epoch);
  std::unique_lock lock(mutex_);
  batches_ = 0;
  work_done_.wait(lock, [&] { return active_ == 0; });

  started_ = false;
  batch_ = std::min(batch, std::max<std::int64_t>(count(), 1));
  const std::int64_t batches = (count() + batch_ - 1) / batch_;
  order_ = indices_;
  if (options_.shuffle) {
    RandomStream random(
        random_key(options_.seed, Purpose::shuffle, static_cast<std::uint64_t>(epoch)));
    const auto shuffled = permutation(count(), random);
    for (std::size_t i = 0; i < order_.size(); ++i)
      order_[i] = indices_[static_cast<std::size_t>(shuffled[i])];
  }
  augment_key_ = random_key(options_.seed, Purpose::augment, static_cast<std::uint64_t>(epoch));
  slots_.resize(static_cast<std::size_t>(std::min(options_.prefetch_batches + 1, batches)));
  for (Slot& slot : slots_) {
    slot.batch.images.resize(static_cast<std::size_t>(batch_ * sample_size_));
    slot.batch.labels.resize(static_cast<std::size_t>(batch_));
    slot.number = -1;
    slot.left = 0;
    slot.exception = nullptr;
  }
  served_ = released_ = claimed_ = 0;
  batches_ = batches;
  started_ = true;
  work_ready_.notify_all();
}

const Batch* Loader::next() {
  NF_CHECK(started_, "loader: next needs a start before it, there was none");
  std::unique_lock lock(mutex_);
  if (released_ < served_) {
    released_ = served_;
    work_ready_.notify_all();
  }
  if (served_ == batches_) return nullptr;
  Slot& slot = slot_of(served_);
  const auto ready = [&] { return slot.number == served_ && slot.left == 0; };
  if (!ready()) {
    const Timer timer;
    work_done_.wait(lock, ready);
    wait_seconds_ += timer.seconds();
  }
  if (slot.exception) std::rethrow_exception(slot.exception);
  ++served_;
  return &slot.batch;
}

std::int32_t Loader::read_sample(std::int64_t position, float* out, std::int64_t epoch) const {
  if (!options_.augment || position < 0 || position >= count()) return read(position, out, nullptr);
  const std::int64_t index = indices_[static_cast<std::size_t>(position)];
  RandomStream augment(
      random_key(options_.seed, Purpose::augment, static_cast<std::uint64_t>(epoch)),
      static_cast<std::uint64_t>(index));
  return read(position, out, &augment);
}

std::int32_t Loader::read(std::int64_t position, float* out, RandomStream* augment) const {
  NF_CHECK(position >= 0 && position < count(), "loader: sample must be in [0, {}), is {}", count(),
           position);
  const std::int64_t index = indices_[static_cast<std::size_t>(position)];
  transform_.apply(*set_, index, out, augment);
  return set_->labels[static_cast<std::size_t>(index)];
}

void Loader::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (work_ready_.wait(lock, stop, [this] { return claimable(); }) && !stop.stop_requested()) {
    const Task task = claim();
    ++active_;
    lock.unlock();
    std::exception_ptr exception;
    try {
      prepare(task);
    } catch (...) {
      exception = std::current_exception();
    }
    lock.lock();
    --active_;
    if (exception && !task.slot->exception) task.slot->exception = std::move(exception);
    task.slot->left -= task.size;
    // The consumer waits for a whole batch, or in start for all threads to pause.
    if (task.slot->left == 0 || active_ == 0) work_done_.notify_one();
  }
}

std::int64_t Loader::size_of(std::int64_t number) const {
  return std::min(batch_, count() - number * batch_);
}

bool Loader::claimable() const {
  const std::int64_t number = claimed_ / batch_;
  return number < batches_ && claimed_ < count() &&
         number < released_ + static_cast<std::int64_t>(slots_.size());
}

Loader::Task Loader::claim() {
  const std::int64_t number = claimed_ / batch_;
  const std::int64_t first = claimed_ % batch_;
  const std::int64_t batch_size = size_of(number);
  Slot& slot = slot_of(number);
  if (first == 0) {
    slot.number = number;
    slot.left = batch_size;
    slot.exception = nullptr;
    // Only the last batch is shorter, so this shrinks and never allocates.
    slot.batch.size = batch_size;
    slot.batch.images.resize(static_cast<std::size_t>(batch_size * sample_size_));
    slot.batch.labels.resize(static_cast<std::size_t>(batch_size));
  }
  const std::int64_t size = std::min(kTaskSamples, batch_size - first);
  const Task task{.slot = &slot, .first = first, .size = size, .position = claimed_};
  claimed_ += size;
  return task;
}

void Loader::prepare(const Task& task) const {
  Batch& batch = task.slot->batch;
  for (std::int64_t i = 0; i < task.size; ++i) {
    const std::int64_t index = order_[static_cast<std::size_t>(task.position + i)];
    float* out = batch.images.data() + (task.first + i) * sample_size_;
    RandomStream augment(augment_key_, static_cast<std::uint64_t>(index));
    transform_.apply(*set_, index, out, options_.augment ? &augment : nullptr);
    batch.labels[static_cast<std::size_t>(task.first + i)] =
        set_->labels[static_cast<std::size_t>(index)];
  }
}

}  // namespace nf::nn
