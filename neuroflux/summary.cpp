#include "neuroflux/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/text.h"

namespace nf {
namespace {

using nlohmann::json;

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json shape_json(const Shape& shape) {
  return std::vector<std::int64_t>(shape.extents().begin(), shape.extents().end());
}

json format_json(const std::optional<nn::PixelFormat>& format) {
  if (!format) return nullptr;
  return {{"shape", shape_json(format->stored)}, {"tables", format->tables}};
}

json block_json(const BlockSummary& block) {
  return {{"first_unit", block.first_unit},
          {"last_unit", block.last_unit},
          {"batch", block.batch},
          {"predicted_peak_bytes", block.predicted_peak_bytes},
          {"measured_peak_bytes", or_null(block.measured_peak_bytes)},
          {"cache_bytes", block.cache_bytes},
          {"predicted_seconds", or_null(block.predicted_seconds)},
          {"train_seconds", or_null(block.train_seconds)},
          {"evaluation_seconds", or_null(block.evaluation_seconds)},
          {"evaluation_wait_seconds", or_null(block.evaluation_wait_seconds)},
          {"cache_seconds", or_null(block.cache_seconds)},
          {"cache_wait_seconds", or_null(block.cache_wait_seconds)},
          {"fill_wait_seconds", or_null(block.fill_wait_seconds)},
          {"cache_host_bytes", or_null(block.cache_host_bytes)}};
}

std::string dash_or(const std::optional<double>& value, fmt::format_string<double> format,
                    double factor = 1.0) {
  return value ? fmt::format(format, *value * factor) : "-";
}

std::string dash_or_bytes(const std::optional<std::int64_t>& bytes) {
  return bytes ? format_bytes(*bytes) : "-";
}

// "1,234,567"
std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

// "0.3 s (15.0%)"
std::string with_share(double seconds, double whole) {
  return fmt::format("{:.1f} s ({:.1f}%)", seconds, whole > 0.0 ? 100.0 * seconds / whole : 0.0);
}

// How much of its time each block waited for the cache; empty where none learnt from one.
std::string waits_note(const MethodSummary& method) {
  std::string training;
  double validation = 0.0, waited = 0.0;
  std::size_t trained = 0;
  for (const BlockSummary& block : method.blocks) {
    if (!block.train_seconds) continue;
    training +=
        fmt::format("{}{}", ++trained == 1 ? "" : ", ",
                    with_share(block.cache_wait_seconds.value_or(0.0), *block.train_seconds));
    validation += block.evaluation_seconds.value_or(0.0);
    waited += block.evaluation_wait_seconds.value_or(0.0);
  }
  if (trained < 2) return "";
  return fmt::format("{}: waiting for the cache was, by block, {} of training; {} of validation\n",
                     method.name, training, with_share(waited, validation));
}

// How the plan's times held, once there are others; empty before.
std::string times_note(const MethodSummary& method) {
  if (!method.predicted_seconds || !method.train_seconds) return "";
  if (method.blocks.empty())
    return fmt::format("{}: training and validation took {:.1f} s, {:.1f} s were predicted\n",
                       method.name, *method.train_seconds + method.evaluation_seconds.value_or(0.0),
                       *method.predicted_seconds);
  std::string blocks;
  double waited = 0.0;
  for (const BlockSummary& block : method.blocks) {
    if (!block.train_seconds || !block.predicted_seconds) continue;  // not trained
    blocks += fmt::format("{}{:.1f} for {:.1f}", blocks.empty() ? "" : ", ",
                          *block.train_seconds + block.cache_seconds.value_or(0.0),
                          *block.predicted_seconds);
    waited += block.cache_wait_seconds.value_or(0.0) + block.fill_wait_seconds.value_or(0.0);
  }
  return fmt::format(
      "{}: training and cache by block, seconds taken for predicted: {}; {:.1f} s of "
      "it waiting for the cache\n",
      method.name, blocks, waited);
}

}  // namespace

const char* status_of(const MethodSummary& method) {
  if (!method.fits) return "does-not-fit";
  if (method.diverged) return "diverged";
  return method.error.empty() ? "ok" : "failed";
}

json to_json(const MethodSummary& method) {
  json result{{"name", method.name},
              {"status", status_of(method)},
              {"update", to_string(method.update)},
              {"batches", method.batches},
              {"predicted_peak_bytes", or_null(method.predicted_peak_bytes)},
              {"measured_peak_bytes", or_null(method.measured_peak_bytes)},
              {"predicted_seconds", or_null(method.predicted_seconds)},
              {"train_seconds", or_null(method.train_seconds)},
              {"evaluation_seconds", or_null(method.evaluation_seconds)},
              {"plan_seconds", or_null(method.plan_seconds)},
              {"total_seconds", or_null(method.total_seconds)},
              {"validation_accuracy", or_null(method.validation_accuracy)},
              {"test_accuracy", or_null(method.test_accuracy)},
              {"parameters", or_null(method.parameters)},
              {"full_parameters", method.full_parameters},
              {"flops", or_null(method.flops)},
              {"inference_images_per_second", or_null(method.inference_images_per_second)},
              {"inference_batch", or_null(method.inference_batch)},
              {"minimum_budget_bytes", method.minimum_budget_bytes},
              {"seconds_to_bp_accuracy", or_null(method.seconds_to_bp_accuracy)},
              {"energy_joules", or_null(method.energy_joules)},
              {"weights", method.weights.empty() ? json(nullptr) : json(method.weights)}};
  if (method.micro_batch) result["micro_batch"] = *method.micro_batch;
  if (!method.segments.empty()) result["segments"] = method.segments;
  if (!method.error.empty()) result["error"] = method.error;
  result["history"] = json::array();
  for (const AccuracyPoint& point : method.history)
    result["history"].push_back({{"elapsed_seconds", point.elapsed_seconds},
                                 {"train_seconds", point.train_seconds},
                                 {"validation_accuracy", point.validation_accuracy}});
  if (method.unit_count == 0) return result;
  result["cache_bytes"] = or_null(method.cache_bytes);
  result["blocks"] = json::array();
  for (const BlockSummary& block : method.blocks) result["blocks"].push_back(block_json(block));
  result["exits"] = json::array();
  for (const ExitSummary& exit : method.exits)
    result["exits"].push_back(
        {{"unit", exit.unit},
         {"parameters", exit.parameters},
         {"flops", exit.flops},
         {"validation_accuracy", exit.validation_accuracy},
         {"inference_images_per_second", or_null(exit.inference_images_per_second)}});
  result["exit_unit"] = or_null(method.exit_unit);
  if (method.wanted_exit_accuracy) result["wanted_exit_accuracy"] = *method.wanted_exit_accuracy;
  result["stopped_early"] = or_null(method.stopped_early);
  return result;
}

json to_json(const Summary& summary) {
  json methods = json::array();
  for (const MethodSummary& method : summary.methods) methods.push_back(to_json(method));
  return {{"model", summary.model},
          {"input", shape_json(summary.input)},
          {"stored_pixels", format_json(summary.format)},
          {"classes", summary.classes},
          {"device", summary.device},
          {"threads", summary.threads},
          {"seed", summary.seed},
          {"budget_bytes", summary.budget_bytes},
          {"context_bytes", or_null(summary.context_bytes)},
          {"train_images", summary.train_images},
          {"validation_images", summary.validation_images},
          {"test_images", summary.test_images},
          {"methods", methods}};
}

bool lacks_wanted_exit(const MethodSummary& method) {
  return method.wanted_exit_accuracy &&
         std::none_of(method.exits.begin(), method.exits.end(), [&](const ExitSummary& exit) {
           return exit.validation_accuracy >= *method.wanted_exit_accuracy;
         });
}

void compare_with_bp(Summary& summary) {
  const auto bp = std::find_if(summary.methods.begin(), summary.methods.end(),
                               [](const MethodSummary& method) { return method.name == "bp"; });
  if (bp != summary.methods.end()) compare_with_bp(summary, *bp);
}

void compare_with_bp(Summary& summary, const MethodSummary& bp) {
  if (!bp.validation_accuracy) return;
  const double wanted = *bp.validation_accuracy;
  for (MethodSummary& method : summary.methods) {
    if (!method.error.empty()) continue;
    const auto reached = std::find_if(
        method.history.begin(), method.history.end(),
        [&](const AccuracyPoint& point) { return point.validation_accuracy >= wanted; });
    if (reached != method.history.end()) method.seconds_to_bp_accuracy = reached->elapsed_seconds;
  }
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i == 0 ? fmt::format("{:<{}}", row[i], widths[i])
                     : fmt::format("  {:>{}}", row[i], widths[i]);
    text += line + '\n';
  }
  return text;
}

std::string batches_text(const std::vector<std::int64_t>& batches) {
  std::string text;
  for (const std::int64_t batch : batches)
    text += fmt::format("{}{}", text.empty() ? "" : ",", batch);
  return text.empty() ? "-" : text;
}

std::string to_table(const Summary& summary) {
  std::vector<std::vector<std::string>> rows{
      {"method", "status", "batch", "predicted peak", "measured peak", "train s", "total s",
       "s to bp's acc", "val acc %", "test acc %", "parameters", "inference img/s"}};
  std::string notes;
  for (const MethodSummary& method : summary.methods) {
    rows.push_back(
        {method.name, method.fits ? status_of(method) : "does not fit",
         batches_text(method.batches), dash_or_bytes(method.predicted_peak_bytes),
         dash_or_bytes(method.measured_peak_bytes), dash_or(method.train_seconds, "{:.1f}"),
         dash_or(method.total_seconds, "{:.1f}"), dash_or(method.seconds_to_bp_accuracy, "{:.1f}"),
         dash_or(method.validation_accuracy, "{:.2f}", 100.0),
         dash_or(method.test_accuracy, "{:.2f}", 100.0),
         method.parameters ? grouped(*method.parameters) : "-",
         dash_or(method.inference_images_per_second, "{:.0f}")});
    if (!method.fits)
      notes +=
          fmt::format("{} does not fit {}: it needs at least {} ({} bytes)\n", method.name,
                      format_bytes(summary.budget_bytes),
                      format_bytes_up(method.minimum_budget_bytes), method.minimum_budget_bytes);
    if (method.diverged) notes += fmt::format("{} diverged: {}\n", method.name, method.error);
    if (method.exit_unit)
      notes += fmt::format(
          "{} delivers exit {} of {} units: {:.1f} times fewer parameters than the whole net{}{}\n",
          method.name, *method.exit_unit, method.unit_count,
          static_cast<double>(method.full_parameters) / static_cast<double>(*method.parameters),
          method.stopped_early.value_or(false) ? "; later blocks were not trained" : "",
          lacks_wanted_exit(method)
              ? fmt::format("; none has the validation accuracy that was wanted, {:.2f}%",
                            *method.wanted_exit_accuracy * 100.0)
              : "");
    notes += times_note(method) + waits_note(method);
  }
  if (summary.context_bytes)
    notes += fmt::format("beside the budget {}'s context and libraries take {}\n", summary.device,
                         format_bytes(*summary.context_bytes));
  return format_table(rows) + notes;
}

}  // namespace nf
