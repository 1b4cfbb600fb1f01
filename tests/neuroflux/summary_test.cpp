#include "neuroflux/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nf {
namespace {

using testing::HasSubstr;
using testing::Not;

Summary planned_methods() {
  Summary summary;
  summary.methods.resize(2);
  MethodSummary& bp = summary.methods[0];
  bp.name = "bp";
  bp.fits = true;
  bp.predicted_seconds = 20.0;
  MethodSummary& local = summary.methods[1];
  local.name = "neuroflux";
  local.fits = true;
  local.predicted_seconds = 11.0;
  local.blocks.resize(3);
  for (BlockSummary& block : local.blocks) block.predicted_seconds = 3.0;
  return summary;
}

TEST(SummaryTable, APlanTellsNoTimesTaken) {
  EXPECT_THAT(to_table(planned_methods()), Not(HasSubstr("predicted:")));
}

TEST(SummaryTable, HoldsPredictedTimesAgainstThoseTaken) {
  Summary summary = planned_methods();
  summary.methods[0].train_seconds = 21.25;
  summary.methods[0].evaluation_seconds = 0.75;
  MethodSummary& local = summary.methods[1];
  local.train_seconds = 7.0;
  for (std::size_t k : {0, 1}) {  // the third was not trained
    local.blocks[k].train_seconds = 2.0 + static_cast<double>(k);
    local.blocks[k].cache_seconds = 0.5;
    local.blocks[k].cache_wait_seconds = 0.25;
    local.blocks[k].evaluation_seconds = 0.5;
    local.blocks[k].evaluation_wait_seconds = 0.05 * static_cast<double>(1 + 2 * k);
  }
  const std::string table = to_table(summary);
  EXPECT_THAT(table, HasSubstr("bp: training and validation took 22.0 s, 20.0 s were predicted\n"));
  EXPECT_THAT(table,
              HasSubstr("neuroflux: training and cache by block, seconds taken for predicted: "
                        "2.5 for 3.0, 3.5 for 3.0; 0.5 s of it waiting for the cache\n"));
  EXPECT_THAT(table,
              testing::ContainsRegex(
                  "neuroflux: waiting for the cache was, by block, 0\\.[23] s \\(12\\.5%\\), "
                  "0\\.[23] s \\(8\\.3%\\) of training; 0\\.2 s \\(20\\.0%\\) of validation\n"));
}

TEST(SummaryTable, SaysWhereNoExitIsAsWanted) {
  Summary summary = planned_methods();
  MethodSummary& local = summary.methods[1];
  local.unit_count = 2;
  local.parameters = 10;
  local.full_parameters = 40;
  local.exits = {{1, 10, 100, 0.80, {}}, {2, 40, 400, 0.85, {}}};
  local.exit_unit = 1;
  EXPECT_FALSE(lacks_wanted_exit(local));
  local.wanted_exit_accuracy = 0.85;
  EXPECT_FALSE(lacks_wanted_exit(local));
  EXPECT_THAT(to_table(summary), Not(HasSubstr("wanted")));
  local.wanted_exit_accuracy = 0.86;
  EXPECT_TRUE(lacks_wanted_exit(local));
  EXPECT_THAT(to_table(summary),
              HasSubstr("neuroflux delivers exit 1 of 2 units: 4.0 times fewer parameters than the "
                        "whole net; none has the validation accuracy that was wanted, 86.00%\n"));
}

}  // namespace
}  // namespace nf
