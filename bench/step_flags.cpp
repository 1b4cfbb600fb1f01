#include "bench/step_flags.h"

#include "bench/conditions.h"
#include "engine/error.h"
#include "engine/random.h"

namespace nf::bench {

void StepFlags::add_to(CLI::App& app) {
  app.option_defaults()->always_capture_default();
  app.add_option("--model", model, "net, as vgg11 or mobilenet_v1");
  app.add_option("--batch", batch, "images per step")->check(CLI::Range(1, 65536));
  app.add_option("--steps", steps, "timed steps, after three to warm up")
      ->check(CLI::Range(1, 100000));
  app.add_option("--device", device_name_, "cpu, cuda[:N] or simt");
  app.add_option("--threads", device.threads, "inside operators, 0: one per core")
      ->check(CLI::Range(0, 1024));
  app.add_option("--width", model_options.width, "factor on the net's channels");
  app.add_option("--input", input_, "height, width and channels of an image, as 32x32x3")
      ->delimiter('x')
      ->expected(3)
      ->check(CLI::Range(1, 4096));
  app.add_option("--classes", model_options.classes, "outputs of the net")
      ->check(CLI::Range(1, 1000000));
  app.add_flag("--tf32", device.tf32,
               "let a GPU round operands of convolutions and products to 10 bits");
  app.add_flag("--no-onednn", no_onednn_, "convolution and matrix product by Eigen");
  app.add_flag("--json", json, "one JSON object instead of text");
}

void StepFlags::resolve() {
  model_options.input = Shape(input_);
  device.device = parse_device(device_name_);
  device.onednn = !no_onednn_;
  NF_CHECK(device.device.kind != DeviceKind::meta,
           "--device: {} computes nothing, so there is nothing to time", device_name_);
}

nlohmann::json StepFlags::describe(const std::string& model_name, int threads) const {
  return {{"engine", "neuroflux"},
          {"model", model_name},
          {"width", model_options.width},
          {"input", model_options.input.extents()},
          {"classes", model_options.classes},
          {"batch", batch},
          {"steps", steps},
          {"device", to_string(device.device)},
          {"tf32", device.tf32},
          {"threads", threads},
          {"library", library(device)},
          {"cpu_isa", cpu_isa()},
          {"compiler", compiler()},
          {"build", build()},
          {"commit", commit()}};
}

RandomBatch::RandomBatch(std::int64_t size, const Shape& sample, std::int64_t classes)
    : sample_(sample),
      images_(static_cast<std::size_t>(size * sample.numel())),
      labels_(static_cast<std::size_t>(size)) {
  RandomStream random(random_key(0, Purpose::generate));
  for (float& value : images_) value = random.normal();
  for (std::int32_t& label : labels_)
    label = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(classes)));
}

nn::HostBatch RandomBatch::host() const {
  return {.size = std::ssize(labels_),
          .sample = sample_,
          .images = images_.data(),
          .labels = labels_.data()};
}

}  // namespace nf::bench
