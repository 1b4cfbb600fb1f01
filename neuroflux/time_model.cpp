#include "neuroflux/time_model.h"

#include <algorithm>

#include "engine/error.h"

namespace nf {

BatchTime::BatchTime(std::vector<Point> points) : points_(std::move(points)) {
  NF_CHECK(!points_.empty(), "batch time: no points");
  for (std::size_t i = 0; i < points_.size(); ++i) {
    const std::int64_t before = i == 0 ? 0 : points_[i - 1].batch;
    NF_CHECK(points_[i].batch > before && points_[i].seconds >= 0.0,
             "batch time: point {} is {} s at batch {}, after batch {}", i, points_[i].seconds,
             points_[i].batch, before);
  }
}

double BatchTime::seconds(std::int64_t batch) const {
  NF_CHECK(!points_.empty(), "batch time: no points");
  const auto at = static_cast<double>(batch);
  const Point& last = points_.back();
  if (points_.size() == 1 || batch >= last.batch)
    return last.seconds * at / static_cast<double>(last.batch);
  const auto above = std::find_if(points_.begin() + 1, points_.end() - 1,
                                  [=](const Point& point) { return point.batch >= batch; });
  const Point& right = *above;
  const Point& left = *(above - 1);
  const double slope =
      (right.seconds - left.seconds) / static_cast<double>(right.batch - left.batch);
  return std::max(0.0, left.seconds + slope * (at - static_cast<double>(left.batch)));
}

double BatchTime::set_seconds(std::int64_t count, std::int64_t batch) const {
  const auto whole = static_cast<double>(count / batch);
  const std::int64_t rest = count % batch;
  return (whole > 0 ? whole * seconds(batch) : 0.0) + (rest > 0 ? seconds(rest) : 0.0);
}

BlockTime block_time(const std::vector<const PassTimes*>& units, std::int64_t batch,
                     const BlockWork& work, const StorageSpeed& storage) {
  NF_CHECK(!units.empty(), "block time: no units");
  const auto epochs = static_cast<double>(work.epochs);
  const auto sum = [&](BatchTime PassTimes::*pass, std::int64_t count) {
    double seconds = units.front()->stage.set_seconds(count, batch);
    for (const PassTimes* unit : units) seconds += (unit->*pass).set_seconds(count, batch);
    return seconds;
  };
  // The validation set lies in the same cache and is read as fast.
  const double sample_bytes =
      static_cast<double>(work.read_bytes) / static_cast<double>(work.train_count);
  const auto with_reading = [&](double compute, std::int64_t count) {
    if (work.read_bytes == 0) return compute;
    const double bytes = sample_bytes * static_cast<double>(count);
    return std::max(compute + bytes * storage.read_work, bytes / storage.read);
  };
  BlockTime time;
  time.train = epochs * with_reading(sum(&PassTimes::train, work.train_count), work.train_count);
  time.evaluation = epochs * with_reading(sum(&PassTimes::evaluate, work.validation_count),
                                          work.validation_count);
  if (work.write_bytes > 0) {
    const std::int64_t count = work.cache_views * work.train_count + work.validation_count;
    const double compute = with_reading(sum(&PassTimes::forward, count), count);
    const auto bytes = static_cast<double>(work.write_bytes);
    time.cache = std::max(compute + bytes * storage.write_work, bytes / storage.write);
  }
  return time;
}

std::int64_t fastest_batch(const std::vector<const PassTimes*>& units, std::int64_t max_batch,
                           std::int64_t count, double margin) {
  NF_CHECK(!units.empty() && max_batch >= 1, "fastest batch: {} units, at most {}", units.size(),
           max_batch);
  const auto epoch = [&](std::int64_t batch) {
    double seconds = units.front()->stage.set_seconds(count, batch);
    for (const PassTimes* unit : units) seconds += unit->train.set_seconds(count, batch);
    return seconds;
  };
  std::int64_t best = max_batch;
  double least = epoch(max_batch) * (1.0 - margin);
  for (const PassTimes* unit : units)
    for (const BatchTime::Point& point : unit->train.points()) {
      if (point.batch >= max_batch || epoch(point.batch) >= least) continue;
      best = point.batch;
      least = epoch(point.batch);
    }
  return best;
}

}  // namespace nf
