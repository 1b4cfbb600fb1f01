#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>

namespace nf::tools {
namespace {

constexpr auto kPause = std::chrono::milliseconds(100);
constexpr std::size_t kDefaultColumns = 80;

// A longer line would wrap, and its first part could no longer be rewritten.
std::size_t terminal_columns(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return kDefaultColumns;
  return size.ws_col - 1U;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

void Progress::step(const Stage& stage, const nn::StepProgress& progress) {
  epochs_ = progress.epochs;
  const auto now = std::chrono::steady_clock::now();
  const std::string name = describe(stage);
  if (left_ != nullptr)
    left_->update(name, static_cast<double>(progress.step) / static_cast<double>(progress.steps),
                  std::chrono::duration<double>(now.time_since_epoch()).count());
  if (!rewrite_) return;
  begin_stage(name);
  const bool last = progress.step == progress.steps;
  if (line_open_ && !last && now - last_write_ < kPause) return;
  last_write_ = now;
  std::string left = time_left();
  if (left.empty()) left = format_duration(progress.seconds_left) + " left";
  // What a narrow terminal cuts off is what is least missed.
  rewrite_line(fmt::format("{}  epoch {}/{}  {:.0f} images/s{}  {}  step {}/{}", name,
                           progress.epoch, progress.epochs, progress.images_per_second, accuracy(),
                           left, progress.step, progress.steps));
}

void Progress::phase(const Stage& stage, const char* name) {
  if (!rewrite_) return;
  begin_stage(describe(stage));
  const std::string left = time_left();
  rewrite_line(
      fmt::format("{}  {}{}{}{}", stage_, name, accuracy(), left.empty() ? "" : "  ", left));
}

void Progress::epoch(const Stage& stage, const nn::EpochMetrics& metrics) {
  for (const nn::OutputMetrics& output : metrics.outputs)
    if (validated_) best_ = std::max(best_.value_or(0.0), output.validation_accuracy);
  const double seconds = metrics.train_seconds + metrics.evaluation_seconds;
  if (rewrite_) {
    rewrite_line(fmt::format("{}  epoch {}/{}  {:.0f} images/s{}", describe(stage), metrics.epoch,
                             epochs_, metrics.images_per_second, accuracy()));
    return;
  }
  std::string outputs;
  for (const nn::OutputMetrics& output : metrics.outputs) {
    outputs += fmt::format("{}{} loss {:.4f}", outputs.empty() ? "" : ", ", output.name,
                           output.train_loss);
    if (validated_) outputs += fmt::format(" val {:.2f}%", output.validation_accuracy * 100.0);
  }
  const std::string left = time_left();
  message(fmt::format("{} epoch {}/{}: {}; {:.0f} images/s, {:.1f} s{}{}", describe(stage),
                      metrics.epoch, epochs_, outputs, metrics.images_per_second, seconds,
                      left.empty() ? "" : "; ", left));
}

void Progress::begin_stage(const std::string& name) {
  if (name == stage_) return;
  end_line();
  stage_ = name;
  best_.reset();
}

std::string Progress::accuracy() const {
  return best_ ? fmt::format("  val {:.1f}%", *best_ * 100.0) : "";
}

std::string Progress::time_left() const {
  const std::optional<double> seconds = left_ != nullptr ? left_->seconds() : std::nullopt;
  if (!seconds) return "";
  return fmt::format("run: {}{} left", left_->at_most() ? "at most " : "",
                     format_duration(*seconds));
}

void Progress::message(const std::string& text) {
  end_line();
  fmt::print(out_, "{}\n", text);
  std::fflush(out_);
}

void Progress::rewrite_line(const std::string& text) {
  constexpr const char* kClearToEnd = "\x1b[K";
  fmt::print(out_, "\r{}{}", text.substr(0, terminal_columns(out_)), kClearToEnd);
  std::fflush(out_);
  line_open_ = true;
}

void Progress::end_line() {
  if (!line_open_) return;
  std::fputc('\n', out_);
  std::fflush(out_);
  line_open_ = false;
}

}  // namespace nf::tools
