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
  if (options_.form == SampleForm::pixels) {
    format_ = transform_.pixel_format(*set_);
    tables_ = transform_.tables();
  }
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
  augment_key_ = augment_key(epoch);
  slots_.resize(static_cast<std::size_t>(std::min(options_.prefetch_batches + 1, batches)));
  for (Slot& slot : slots_) {
    resize(slot.batch, batch_);
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

Batch Loader::read(std::int64_t first, std::int64_t n, std::int64_t epoch) const {
  NF_CHECK(first >= 0 && n >= 1 && n <= count() - first,
           "loader: samples must be in [0, {}), are {} from the {}th on", count(), n, first);
  NF_CHECK(epoch >= 0, "loader: epoch must not be negative, is {}", epoch);
  const std::uint64_t key = augment_key(epoch);
  Batch batch;
  resize(batch, n);
  for (std::int64_t i = 0; i < n; ++i)
    write_sample(batch, i, indices_[static_cast<std::size_t>(first + i)], key);
  return batch;
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
    resize(slot.batch, batch_size);
  }
  const std::int64_t size = std::min(kTaskSamples, batch_size - first);
  const Task task{.slot = &slot, .first = first, .size = size, .position = claimed_};
  claimed_ += size;
  return task;
}

void Loader::prepare(const Task& task) const {
  for (std::int64_t i = 0; i < task.size; ++i) {
    const std::int64_t index = order_[static_cast<std::size_t>(task.position + i)];
    write_sample(task.slot->batch, task.first + i, index, augment_key_);
  }
}

void Loader::resize(Batch& batch, std::int64_t size) const {
  const auto count = static_cast<std::size_t>(size);
  batch.size = size;
  batch.labels.resize(count);
  batch.format = format_;
  if (format_) {
    batch.pixels.resize(count * static_cast<std::size_t>(set_->image_size()));
    batch.windows.resize(count);
    batch.tables = tables_;
  } else {
    batch.images.resize(count * static_cast<std::size_t>(sample_shape_.numel()));
  }
}

std::uint64_t Loader::augment_key(std::int64_t epoch) const {
  return random_key(options_.seed, Purpose::augment, static_cast<std::uint64_t>(epoch));
}

void Loader::write_sample(Batch& batch, std::int64_t at, std::int64_t index,
                          std::uint64_t augment_key) const {
  RandomStream random(augment_key, static_cast<std::uint64_t>(index));
  RandomStream* augment = options_.augment ? &random : nullptr;
  if (format_) {
    const std::int64_t size = set_->image_size();
    std::copy_n(set_->pixels.data() + index * size, size, batch.pixels.data() + at * size);
    batch.windows[static_cast<std::size_t>(at)] = transform_.window(*set_, augment);
  } else {
    transform_.apply(*set_, index, batch.images.data() + at * sample_shape_.numel(), augment);
  }
  batch.labels[static_cast<std::size_t>(at)] = set_->labels[static_cast<std::size_t>(index)];
}

}  // namespace nf::nn
