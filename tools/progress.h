// How far a training is: one line rewritten on a terminal, a line per epoch elsewhere.
#pragma once

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include "neuroflux/local_trainer.h"
#include "neuroflux/time_left.h"

namespace nf::tools {

/// "42s", "3:07", "1:02:03".
std::string format_duration(double seconds);

class Progress {
 public:
  /// `rewrite`: whether `out` is a terminal whose last line can be written again.
  /// `validated`: whether epochs come with a validation accuracy.
  /// `left`, which may be null, is kept up to date and told of the whole run.
  Progress(std::FILE* out, bool rewrite, bool validated, TimeLeft* left = nullptr)
      : out_(out), rewrite_(rewrite), validated_(validated), left_(left) {}
  ~Progress() { end_line(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const Stage& stage, const nn::StepProgress& progress);
  void epoch(const Stage& stage, const nn::EpochMetrics& metrics);
  /// Work without steps, such as "testing"; told on a terminal only.
  void phase(const Stage& stage, const char* name);
  void message(const std::string& text);

 private:
  void begin_stage(const std::string& name);
  std::string accuracy() const;
  std::string time_left() const;
  void rewrite_line(const std::string& text);
  void end_line();

  std::FILE* out_;
  bool rewrite_;
  bool validated_;
  TimeLeft* left_;
  bool line_open_ = false;
  std::string stage_;           // of the line that is open
  std::int64_t epochs_ = 0;     // of the present stage
  std::optional<double> best_;  // validation accuracy of the present stage
  std::chrono::steady_clock::time_point last_write_{};
};

}  // namespace nf::tools
