#include "neuroflux/time_left.h"

#include <algorithm>
#include <utility>

#include "neuroflux/local_trainer.h"

namespace nf {

void TimeLeft::begin_run(std::int64_t run) {
  while (current_ < parts_.size() && parts_[current_].run < run) ++current_;
  share_ = 0.0;
}

void TimeLeft::update(const std::string& stage, double share, double now) {
  if (current_ == parts_.size()) return;
  const std::int64_t run = parts_[current_].run;
  std::size_t found = current_;
  while (found < parts_.size() && parts_[found].run == run && parts_[found].stage != stage) ++found;
  if (found == parts_.size() || parts_[found].run != run) return;
  share = std::clamp(share, 0.0, 1.0);
  if (last_) {
    // A part that ran to its end told of it; the rest of any other was left out, as where a method
    // diverges or stops early.
    const double before = found == current_ ? share_ : 0.0;
    predicted_ += (share - before) * parts_[found].seconds;
    measured_ += now - *last_;
  }
  current_ = found;
  share_ = share;
  last_ = now;
}

std::optional<double> TimeLeft::seconds() const {
  if (current_ == parts_.size()) return 0.0;
  if (predicted_ <= 0.0 || measured_ <= 0.0) return std::nullopt;
  double left = -share_ * parts_[current_].seconds;
  for (std::size_t i = current_; i < parts_.size(); ++i) left += parts_[i].seconds;
  return left * measured_ / predicted_;
}

bool TimeLeft::at_most() const {
  const std::size_t next = std::min(current_ + 1, parts_.size());
  return std::any_of(parts_.begin() + static_cast<std::ptrdiff_t>(next), parts_.end(),
                     [](const Part& part) { return part.optional; });
}

std::vector<TimeLeft::Part> parts_of(std::int64_t run, const Summary& plan, bool stops_early) {
  std::vector<TimeLeft::Part> parts;
  for (const MethodSummary& method : plan.methods) {
    if (!method.fits) continue;
    const double whole = method.predicted_seconds.value_or(0.0);
    if (method.blocks.empty()) {
      parts.push_back({run, describe({method.name, 0, 0}), whole});
      continue;
    }
    double told = 0.0;
    for (const BlockSummary& block : method.blocks) told += block.predicted_seconds.value_or(0.0);
    const auto blocks = static_cast<std::int64_t>(method.blocks.size());
    for (std::int64_t k = 0; k < blocks; ++k) {
      // Validation is told of the method as a whole; it grows with a block's training.
      const double own = method.blocks[static_cast<std::size_t>(k)].predicted_seconds.value_or(0.0);
      parts.push_back({run, describe({method.name, k + 1, blocks}),
                       told > 0.0 ? whole * own / told : 0.0, stops_early && k > 0});
    }
  }
  return parts;
}

}  // namespace nf
