#include "nn/step_runner.h"

#include <algorithm>
#include <cstring>

namespace nf::nn {
namespace {

// In device memory, in front of the slots.
struct Header {
  std::uint64_t dropout_key = 0;
};

std::int64_t bytes_for(std::size_t slots) {
  return static_cast<std::int64_t>(sizeof(Header) + slots * sizeof(StepSlot));
}

Header* header_of(Tensor& memory) { return static_cast<Header*>(memory.mutable_view().data); }
StepSlot* slots_of(Tensor& memory) { return reinterpret_cast<StepSlot*>(header_of(memory) + 1); }

std::vector<StepResult> train_one_by_one(const Chain& chain, DeviceBatch batch,
                                         const StepOptions& options) {
  std::vector<StepResult> results;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    Tensor next;
    const bool last = i + 1 == chain.size();
    results.push_back(train_step(chain[i], std::exchange(batch.images, Tensor()), batch.labels,
                                 options, last ? nullptr : &next));
    batch.images = std::move(next);
  }
  return results;
}

void capture_all(const Chain& chain, DeviceBatch batch, double label_smoothing, Tensor& memory) {
  for (std::size_t i = 0; i < chain.size(); ++i) {
    Tensor next;
    const bool last = i + 1 == chain.size();
    capture_step(chain[i], std::exchange(batch.images, Tensor()), batch.labels, label_smoothing,
                 &header_of(memory)->dropout_key, slots_of(memory) + i, last ? nullptr : &next);
    batch.images = std::move(next);
  }
}

// A GPU loads a kernel when it is first launched, which a capture need not allow. Those of a step
// have run in the steps before, but for the copies of loss and norm: of 16 bytes at a time, of 4.
void launch_copies(Backend& backend, StepSlot* slot) {
  backend.copy({&slot->loss, DType::f32, {1}}, {&slot->loss, DType::f32, {1}});
  backend.copy({&slot->loss, DType::f32, {1}}, {&slot->norm, DType::f32, {1}});
}

}  // namespace

struct StepRunner::Graph {
  std::unique_ptr<CapturedCalls> calls;
  std::int64_t size = 0;
  double label_smoothing = 0;
  // What must be as it was for the addresses in the calls to be right.
  std::vector<std::pair<std::int64_t, std::int64_t>> layout;
  const void *slots = nullptr, *images = nullptr, *labels = nullptr;
  std::int64_t peak_live = 0, peak_reserved = 0;
};

std::vector<StepResult> StepRunner::train(const Chain& chain, const float* images,
                                          const std::int32_t* labels, std::int64_t size,
                                          const StepOptions& options) {
  Staged staged = stage(chain, images, labels, size);
  const bool again = std::exchange(last_size_, size) == size;
  const bool started = std::all_of(chain.begin(), chain.end(), [](const Trainable& trainable) {
    return trainable.optimizer->steps() > 0;
  });
  if (context_->graphs() && !context_->is_meta() && !context_->pool().traced() && started) {
    if (again && !fits(staged, options)) {
      capture(chain, staged, options);
      staged = stage(chain, images, labels, size);
    }
    if (fits(staged, options)) return replay(chain, staged, options);
  }
  return train_one_by_one(chain, std::move(staged.batch), options);
}

void StepRunner::forget() {
  graph_.reset();
  last_size_ = 0;
}

StepRunner::Staged StepRunner::stage(const Chain& chain, const float* images,
                                     const std::int32_t* labels, std::int64_t size) const {
  Staged staged;
  // There for every step, so that all ask for the same memory.
  if (context_->graphs()) {
    const OpScope op("step_slots");
    staged.slots =
        Tensor::empty(context_, {bytes_for(chain.size())}, DType::u8, Category::workspace);
  }
  staged.batch = stage_batch(context_, sample_shape_, images, labels, size);
  return staged;
}

bool StepRunner::fits(const Staged& staged, const StepOptions& options) const {
  return graph_ != nullptr && graph_->size == staged.batch.labels.numel() &&
         graph_->label_smoothing == options.label_smoothing &&
         graph_->slots == staged.slots.view().data &&
         graph_->images == staged.batch.images.view().data &&
         graph_->labels == staged.batch.labels.view().data &&
         graph_->layout == context_->pool().layout();
}

void StepRunner::capture(const Chain& chain, Staged& staged, const StepOptions& options) {
  graph_.reset();
  Pool& pool = context_->pool();
  Backend& backend = context_->backend();
  auto graph = std::make_shared<Graph>();
  graph->size = staged.batch.labels.numel();
  graph->label_smoothing = options.label_smoothing;
  graph->layout = pool.layout();
  graph->slots = staged.slots.view().data;
  graph->images = staged.batch.images.view().data;
  graph->labels = staged.batch.labels.view().data;
  launch_copies(backend, slots_of(staged.slots));
  const PoolStats before = pool.stats();
  pool.reset_peak();
  backend.begin_capture();
  try {
    capture_all(chain, std::move(staged.batch), options.label_smoothing, staged.slots);
    graph->calls = backend.end_capture();
  } catch (...) {
    backend.abandon_capture();
    pool.note_peaks(before.peak_live, before.peak_reserved);
    throw;
  }
  graph->peak_live = pool.stats().peak_live;
  graph->peak_reserved = pool.stats().peak_reserved;
  pool.note_peaks(before.peak_live, before.peak_reserved);
  // Freed here, to be granted again at the same address.
  staged = {};
  graph_ = std::move(graph);
}

std::vector<StepResult> StepRunner::replay(const Chain& chain, Staged& staged,
                                           const StepOptions& options) {
  std::vector<std::byte> image(static_cast<std::size_t>(staged.slots.bytes()));
  const Header header{options.dropout_key};
  std::vector<StepSlot> slots(chain.size());
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const auto [decaying, others] = chain[i].optimizer->scalars(options.rate_factor);
    slots[i].decaying = decaying;
    slots[i].others = others;
  }
  const std::size_t slot_bytes = slots.size() * sizeof(StepSlot);
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + sizeof(header), slots.data(), slot_bytes);
  staged.slots.copy_from_host(image.data());
  graph_->calls->replay();
  // Waits for the whole step, so that its memory is free for anyone.
  staged.slots.copy_to_host(image.data());
  context_->pool().note_peaks(graph_->peak_live, graph_->peak_reserved);
  ++replays_;
  std::memcpy(slots.data(), image.data() + sizeof(header), slot_bytes);
  std::vector<StepResult> results;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const auto loss = static_cast<double>(slots[i].loss);
    check_loss(chain[i], loss, options);
    chain[i].optimizer->count_replayed(static_cast<double>(slots[i].norm));
    results.push_back({loss, slots[i].correct});
  }
  return results;
}

}  // namespace nf::nn
