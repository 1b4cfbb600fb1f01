#include "neuroflux/metrics_log.h"

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"

namespace nf {

using nlohmann::json;

namespace {

constexpr double kMostFigure = 1e30;  // of a loss, a rate or a speed

}  // namespace

json to_json(const nn::EpochMetrics& metrics) {
  json outputs = json::array();
  for (const nn::OutputMetrics& output : metrics.outputs)
    outputs.push_back({{"name", output.name},
                       {"train_loss", output.train_loss},
                       {"train_accuracy", output.train_accuracy},
                       {"validation_loss", output.validation_loss},
                       {"validation_accuracy", output.validation_accuracy}});
  return {{"epoch", metrics.epoch},
          {"learning_rate", metrics.learning_rate},
          {"train_seconds", metrics.train_seconds},
          {"evaluation_seconds", metrics.evaluation_seconds},
          {"images_per_second", metrics.images_per_second},
          {"outputs", std::move(outputs)}};
}

nn::EpochMetrics read_epoch(const JsonValue& value) {
  nn::EpochMetrics metrics;
  metrics.epoch = value.at("epoch").whole(1);
  metrics.learning_rate = value.at("learning_rate").real(0.0, kMostFigure);
  metrics.train_seconds = value.at("train_seconds").real(0.0, kMostSeconds);
  metrics.evaluation_seconds = value.at("evaluation_seconds").real(0.0, kMostSeconds);
  metrics.images_per_second = value.at("images_per_second").real(0.0, kMostFigure);
  for (const JsonValue& output : value.at("outputs").list())
    metrics.outputs.push_back({output.at("name").text(),
                               output.at("train_loss").real(-kMostFigure, kMostFigure),
                               output.at("train_accuracy").real(0.0, 1.0),
                               output.at("validation_loss").real(-kMostFigure, kMostFigure),
                               output.at("validation_accuracy").real(0.0, 1.0)});
  return metrics;
}

MetricsLog::MetricsLog(std::filesystem::path path, std::int64_t bytes) : bytes_(bytes) {
  if (bytes > 0) {
    std::error_code status;
    const auto there = static_cast<std::int64_t>(std::filesystem::file_size(path, status));
    NF_CHECK(!status && there >= bytes, "metrics: {} has fewer than the {} bytes it had",
             path.string(), bytes);
    std::filesystem::resize_file(path, static_cast<std::uintmax_t>(bytes), status);
    NF_CHECK(!status, "metrics: can't cut {}: {}", path.string(), status.message());
  }
  file_ = DiskFile(std::move(path), bytes > 0 ? DiskFile::Mode::write : DiskFile::Mode::create);
}

void MetricsLog::add(const Stage& stage, const nn::EpochMetrics& metrics, double elapsed_seconds) {
  json line = to_json(metrics);
  line["method"] = stage.method;
  line["block"] = stage.block;
  line["elapsed_seconds"] = elapsed_seconds;
  const std::string text = line.dump() + '\n';
  file_.write_at(bytes_, std::as_bytes(std::span(text)));
  bytes_ += static_cast<std::int64_t>(text.size());
}

}  // namespace nf
