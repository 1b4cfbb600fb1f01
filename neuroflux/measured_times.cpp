// Times measured on the device, and the speed of storage measured in the folder in use.
#include <algorithm>

#include "engine/cores.h"
#include "engine/random.h"
#include "engine/timer.h"
#include "neuroflux/activation_cache.h"
#include "neuroflux/time_profile.h"
#include "nn/bp_trainer.h"
#include "nn/stage_batch.h"

namespace nf {
namespace {

constexpr std::int64_t kProbeBytes = std::int64_t{24} << 20;  // of storage, written and read

class MeasuredTimes : public TimeModel {
 public:
  explicit MeasuredTimes(const MeasureOptions& options) : options_(options) {}

  const char* source() const override { return "measured"; }

  PassTimes unit(const LocalUnit& unit, const Shape& sample, std::int64_t max_batch) override {
    const Presence device(*this);
    LocalBlock block(context_, {unit}, sample, options_.optimizer, 0);
    std::vector<float> output;
    return passes(
        sample, max_batch, [&](std::int64_t n) { block.train(batch(sample, n), kNoUpdate); },
        [&](std::int64_t n) { block.evaluate(batch(sample, n)); },
        [&](std::int64_t n) {
          output.resize(static_cast<std::size_t>(n * block.output_sample_shape().numel()));
          block.forward(batch(sample, n), output.data());
        });
  }

  PassTimes whole(nn::Model& model, const nn::Segments& segments, std::int64_t max_batch) override {
    const Presence device(*this);
    std::unique_ptr<nn::WholeNetTrainer> trainer;
    if (segments.empty())
      trainer = std::make_unique<nn::BpTrainer>(context_, model, options_.optimizer, 0);
    else
      trainer =
          std::make_unique<nn::CheckpointTrainer>(context_, model, options_.optimizer, 0, segments);
    const Shape& sample = model.options().input;
    const auto evaluate = [&](std::int64_t n) { trainer->evaluate(batch(sample, n)); };
    return passes(
        sample, max_batch, [&](std::int64_t n) { trainer->train(batch(sample, n), kNoUpdate); },
        evaluate, evaluate);
  }

  StorageSpeed storage() override {
    if (options_.cache_place == CachePlace::memory) return memory_speed();
    return options_.cache_folder.empty() ? nominal_speed(options_.device).storage
                                         : measure_storage();
  }

 private:
  // The folder itself, or the nearest around it that is there.
  static std::filesystem::path existing(std::filesystem::path folder) {
    folder = std::filesystem::absolute(folder);
    while (!std::filesystem::exists(folder)) folder = folder.parent_path();
    return folder;
  }

  StorageSpeed measure_storage() {
    CacheSpec spec{.name = "speed", .sample_shape = {32, 32, 64}, .dtype = options_.cache_dtype};
    const std::int64_t values = spec.sample_shape.numel();
    const std::int64_t sample_bytes = values * size_of(spec.dtype);
    // At least a chunk; where there is no room for one, the run itself will say so.
    spec.count =
        std::min(kProbeBytes, free_bytes(existing(options_.cache_folder)) / 2) / sample_bytes;
    if (spec.count * sample_bytes < spec.chunk_bytes) return nominal_speed(options_.device).storage;
    const auto bytes = static_cast<double>(spec.count * sample_bytes);
    const std::int64_t batch = 16;
    prepare(spec.sample_shape, batch);
    StorageSpeed speed;
    // Operators cut their work into equal parts and wait for the last of them: what one of their
    // cores spends on something else is lost to all.
    const bool shares_cores =
        options_.device.device.kind == DeviceKind::cpu &&
        make_meta_context(options_.device)->backend().threads() >= usable_cores();
    const double work_share = shares_cores ? 1.0 / bytes : 0.0;
    const ProbeFiles files{options_.cache_folder, spec.name};
    const Timer writing;
    const ProcessorTimer write_work;
    CacheWriter writer(options_.cache_folder, spec, {.storage = options_.cache_storage});
    for (std::int64_t first = 0; first < spec.count; first += batch)
      writer.append(images(), labels(), std::min(batch, spec.count - first));
    writer.close();
    speed.write = bytes / writing.seconds();
    speed.write_work = write_work.seconds() * work_share;
    forget_pages(cache_files(options_.cache_folder, spec.name).data);
    const Timer reading;
    const ProcessorTimer read_work;
    {
      CacheReader reader(options_.cache_folder, spec.name, {.storage = options_.cache_storage});
      reader.start(batch, 0);
      while (reader.next() != nullptr) {
      }
    }
    speed.read = bytes / reading.seconds();
    speed.read_work = read_work.seconds() * work_share;
    return speed;
  }

  // Else it could be the page cache that answers. Where the file system can't do that, it does.
  static void forget_pages(const std::filesystem::path& file) {
    try {
      DiskFile(file, DiskFile::Mode::write).forget_pages();
    } catch (const Error&) {
    }
  }

  // They go again, however the measurement ends.
  struct ProbeFiles {
    const std::filesystem::path& folder;
    const std::string& name;
    ~ProbeFiles() {
      try {
        remove_cache(folder, name);
      } catch (const std::exception&) {
        return;
      }
      std::error_code not_empty;  // the run makes it again
      std::filesystem::remove(folder, not_empty);
    }
  };

  // The device is held while something is measured, and free for the run that follows.
  class Presence {
   public:
    explicit Presence(MeasuredTimes& times) : times_(times) {
      times_.context_ = Context::create(times_.options_.device);
    }
    ~Presence() { times_.context_.reset(); }
    Presence(const Presence&) = delete;
    Presence& operator=(const Presence&) = delete;

   private:
    MeasuredTimes& times_;
  };

  // A rate of zero leaves the weights, and takes as long as any other.
  static constexpr nn::StepOptions kNoUpdate{.rate_factor = 0.0};

  const float* images() const { return images_.data(); }
  const std::int32_t* labels() const { return labels_.data(); }
  nn::HostBatch batch(const Shape& sample, std::int64_t size) const {
    return {.size = size, .sample = sample, .images = images(), .labels = labels()};
  }

  void prepare(const Shape& sample, std::int64_t batch) {
    const std::size_t before = images_.size();
    images_.resize(std::max(before, static_cast<std::size_t>(batch * sample.numel())));
    RandomStream random(random_key(0, Purpose::init), before);
    for (std::size_t i = before; i < images_.size(); ++i)
      images_[i] = random.uniform() * 2.0F - 1.0F;
    labels_.resize(std::max(labels_.size(), static_cast<std::size_t>(batch)), 0);
  }

  template <typename Train, typename Evaluate, typename Forward>
  PassTimes passes(const Shape& sample, std::int64_t max_batch, const Train& train,
                   const Evaluate& evaluate, const Forward& forward) {
    prepare(sample, max_batch);
    const double stage = median_seconds(1, [&](std::size_t) {
      nn::stage_batch(context_, batch(sample, max_batch));
      context_->backend().synchronize();
    })[0];
    PassTimes times;
    times.stage = BatchTime({{max_batch, stage}});
    const auto measure = [&](const auto& pass, std::initializer_list<std::int64_t> shares) {
      std::vector<BatchTime::Point> points;
      for (const std::int64_t share : shares) {
        const std::int64_t batch = std::max<std::int64_t>(1, max_batch / share);
        if (points.empty() || batch != points.back().batch) points.push_back({batch, 0.0});
      }
      const std::vector<double> seconds =
          median_seconds(points.size(), [&](std::size_t i) { pass(points[i].batch); });
      for (std::size_t i = 0; i < points.size(); ++i)
        points[i].seconds = std::max(0.0, seconds[i] - times.stage.seconds(points[i].batch));
      return BatchTime(std::move(points));
    };
    times.train = measure(train, {16, 4, 1});
    times.evaluate = measure(evaluate, {4, 1});
    times.forward = measure(forward, {4, 1});
    return times;
  }

  // Of several passes in turn, so that a busy moment of the machine falls on all of them; medians,
  // as the shortest passes would have the luckiest minimum. Steps end with reading their loss or
  // output, so the device is done when they return.
  template <typename Run>
  std::vector<double> median_seconds(std::size_t count, const Run& run) const {
    for (std::size_t i = 0; i < count; ++i)
      run(i);  // libraries choose algorithms, pages are touched
    std::vector<std::vector<double>> seconds(count);
    const double enough = options_.seconds_per_point * static_cast<double>(count);
    const Timer all;
    for (int rounds = 0; rounds < 3 || all.seconds() < enough; ++rounds)
      for (std::size_t i = 0; i < count; ++i) {
        const Timer timer;
        run(i);
        seconds[i].push_back(timer.seconds());
      }
    std::vector<double> medians;
    for (std::vector<double>& samples : seconds) {
      const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
      std::nth_element(samples.begin(), middle, samples.end());
      medians.push_back(*middle);
    }
    return medians;
  }

  MeasureOptions options_;
  ContextPtr context_;
  std::vector<float> images_;
  std::vector<std::int32_t> labels_;
};

}  // namespace

std::unique_ptr<TimeModel> make_measured_times(const MeasureOptions& options) {
  return std::make_unique<MeasuredTimes>(options);
}

}  // namespace nf
