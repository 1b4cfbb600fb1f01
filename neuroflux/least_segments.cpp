// The segments for backpropagation with recomputation that take the least memory.
#include <set>

#include "neuroflux/memory_profile.h"

namespace nf {
namespace {

// A segment ends where the next unit would take it beyond `most`.
nn::Segments bounded_segments(const std::vector<std::int64_t>& bytes, std::int64_t most) {
  nn::Segments segments{0};
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0 && sum + bytes[i] > most) {
      segments.push_back(static_cast<std::int64_t>(i));
      sum = 0;
    }
    sum += bytes[i];
  }
  return segments;
}

std::set<nn::Segments> candidates(const std::vector<std::int64_t>& bytes) {
  std::set<nn::Segments> all;
  const std::int64_t units = std::ssize(bytes);
  for (std::int64_t count = 1; count <= units; ++count) all.insert(nn::even_segments(units, count));
  // No other bound gives other segments than the sums of consecutive units.
  for (std::size_t from = 0; from < bytes.size(); ++from) {
    std::int64_t sum = 0;
    for (std::size_t to = from; to < bytes.size(); ++to) {
      sum += bytes[to];
      all.insert(bounded_segments(bytes, sum));
    }
  }
  return all;
}

}  // namespace

std::vector<std::int64_t> MemoryProfiler::saved_bytes(nn::Model& model, std::int64_t batch) {
  std::vector<std::int64_t> bytes;
  model.materialize(context_, 0);
  try {
    for (std::int64_t i = 0; i < model.unit_count(); ++i) {
      Tape tape;
      const Tensor x = Tensor::empty(context_, model.unit_input_shape(i, batch));
      model.unit(i).forward({.tape = &tape, .training = true}, x);
      bytes.push_back(tape.saved_bytes());
    }
  } catch (...) {
    model.release();
    throw;
  }
  model.release();
  return bytes;
}

nn::Segments MemoryProfiler::least_segments(nn::Model& model, const Workload& workload) {
  nn::Segments best;
  std::int64_t least = 0;
  for (const nn::Segments& segments : candidates(saved_bytes(model, workload.batch))) {
    const std::int64_t peak = checkpoint_peak(model, workload, segments);
    if (!best.empty() && (peak > least || (peak == least && segments.size() >= best.size())))
      continue;
    best = segments;
    least = peak;
  }
  return best;
}

}  // namespace nf
