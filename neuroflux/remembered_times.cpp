// Times asked for once.
#include <map>
#include <string>

#include <fmt/ranges.h>

#include "engine/timer.h"
#include "neuroflux/time_profile.h"

namespace nf {
namespace {

class RememberedTimes : public TimeModel {
 public:
  explicit RememberedTimes(std::unique_ptr<TimeModel> source) : source_(std::move(source)) {}

  const char* source() const override { return source_->source(); }
  double replayed_seconds() const override { return replayed_; }

  PassTimes unit(const LocalUnit& unit, const Shape& sample, std::int64_t max_batch) override {
    // A unit of one net and its classifier are told apart by their sizes.
    const std::string key =
        fmt::format("{} {} {} {} {}", unit.name, unit.unit->parameter_count(),
                    unit.classifier->parameter_count(), sample.str(), max_batch);
    return remember(passes_, key, [&] { return source_->unit(unit, sample, max_batch); });
  }
  PassTimes whole(nn::Model& model, const nn::Segments& segments, std::int64_t max_batch) override {
    const std::string key =
        fmt::format("whole {} {} {} {} {}", fmt::join(segments, ","), model.name(),
                    model.parameter_count(), model.options().input.str(), max_batch);
    return remember(passes_, key, [&] { return source_->whole(model, segments, max_batch); });
  }
  StorageSpeed storage() override {
    return remember(storage_, "", [&] { return source_->storage(); });
  }

 private:
  template <typename T>
  struct Known {
    T value;
    double seconds;
  };

  template <typename T, typename Ask>
  T remember(std::map<std::string, Known<T>>& known, const std::string& key, const Ask& ask) {
    if (const auto found = known.find(key); found != known.end()) {
      replayed_ += found->second.seconds;
      return found->second.value;
    }
    const Timer timer;
    T value = ask();
    known.emplace(key, Known<T>{value, timer.seconds()});
    return value;
  }

  std::unique_ptr<TimeModel> source_;
  std::map<std::string, Known<PassTimes>> passes_;
  std::map<std::string, Known<StorageSpeed>> storage_;
  double replayed_ = 0.0;
};

}  // namespace

std::unique_ptr<TimeModel> remember_times(std::unique_ptr<TimeModel> source) {
  return std::make_unique<RememberedTimes>(std::move(source));
}

}  // namespace nf
