// Times asked for once.
#include <fmt/ranges.h>

#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/atomic_file.h"
#include "engine/timer.h"
#include "neuroflux/json_value.h"
#include "neuroflux/time_profile.h"

namespace nf {
namespace {

using nlohmann::json;

json time_json(const BatchTime& time) {
  json points = json::array();
  for (const BatchTime::Point& point : time.points())
    points.push_back({{"batch", point.batch}, {"seconds", point.seconds}});
  return points;
}

json to_json(const PassTimes& times) {
  return {{"stage", time_json(times.stage)},
          {"train", time_json(times.train)},
          {"evaluate", time_json(times.evaluate)},
          {"forward", time_json(times.forward)}};
}

BatchTime read_time(const JsonValue& value) {
  std::vector<BatchTime::Point> points;
  for (const JsonValue& point : value.list()) {
    points.push_back({point.at("batch").whole(1), point.at("seconds").real(0.0, kMostSeconds)});
    if (points.size() > 1 && points.back().batch <= points[points.size() - 2].batch)
      value.fail("is not in the order of its batches");
  }
  if (points.empty()) value.fail("is empty");
  return BatchTime(std::move(points));
}

PassTimes read_passes(const JsonValue& value) {
  return {read_time(value.at("stage")), read_time(value.at("train")),
          read_time(value.at("evaluate")), read_time(value.at("forward"))};
}

class RememberedTimes : public TimeModel {
 public:
  explicit RememberedTimes(std::unique_ptr<TimeModel> source) : source_(std::move(source)) {}

  void save(const std::filesystem::path& path) const override {
    json passes = json::array();
    for (const auto& [key, known] : passes_) {
      json entry = to_json(known.value);
      entry["of"] = key;
      entry["asking_seconds"] = known.seconds;
      passes.push_back(std::move(entry));
    }
    json document{{"source", source()}, {"passes", std::move(passes)}};
    for (const auto& [key, known] : storage_)
      document["storage"] = {{"write_bytes_per_second", known.value.write},
                             {"read_bytes_per_second", known.value.read},
                             {"write_work_seconds_per_byte", known.value.write_work},
                             {"read_work_seconds_per_byte", known.value.read_work},
                             {"asking_seconds", known.seconds}};
    replace_file(path, document.dump(1) + '\n');
  }

  void load(const std::filesystem::path& path) override {
    const JsonValue document = JsonValue::read(path);
    if (document.at("source").text() != source())
      document.at("source").fail(fmt::format("is not \"{}\"", source()));
    for (const JsonValue& entry : document.at("passes").list())
      passes_.insert_or_assign(entry.at("of").text(),
                               Known<PassTimes>{read_passes(entry), asking_seconds(entry)});
    // Files of earlier versions lack the work: storage is then measured again.
    const auto storage = document.find("storage");
    if (storage && storage->find("read_work_seconds_per_byte"))
      storage_.insert_or_assign(
          "", Known<StorageSpeed>{{read_speed(*storage, "write_bytes_per_second"),
                                   read_speed(*storage, "read_bytes_per_second"),
                                   read_work(*storage, "write_work_seconds_per_byte"),
                                   read_work(*storage, "read_work_seconds_per_byte")},
                                  asking_seconds(*storage)});
  }

  const char* source() const override { return source_->source(); }
  double replayed_seconds() const override { return replayed_; }

  PassTimes unit(const LocalUnit& unit, const Shape& sample, std::int64_t max_batch) override {
    // A unit of one net and its classifier are told apart by their sizes. Classifiers of one size
    // may work on maps that were averaged down, or not.
    const Shape features = unit.unit->output_shape(batch_of_one(sample));
    const std::string key =
        fmt::format("{} {} {} {} {} {}", unit.name, unit.unit->parameter_count(),
                    unit.classifier->parameter_count(), unit.classifier->flops(features),
                    sample.str(), max_batch);
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

  // JSON has no infinity; it is null there.
  static double read_speed(const JsonValue& entry, const char* key) {
    const auto speed = entry.find(key);
    return speed ? speed->real(1.0, kMostSpeed) : std::numeric_limits<double>::infinity();
  }
  static double read_work(const JsonValue& entry, const char* key) {
    return entry.at(key).real(0.0, 1.0);
  }
  static double asking_seconds(const JsonValue& entry) {
    return entry.at("asking_seconds").real(0.0, kMostSeconds);
  }

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
