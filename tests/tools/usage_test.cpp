// Wrong usage: exit code 2 and one line that names what is wrong and, where there is one, the name
// that was probably meant.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/program.h"

namespace nf::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

void expect_one_line(const ProgramResult& result, int exit_code, const std::string& part) {
  EXPECT_EQ(result.exit_code, exit_code);
  const std::vector<std::string> lines = lines_of(result.err);
  ASSERT_EQ(lines.size(), 1U) << result.err;
  EXPECT_THAT(lines.front(), StartsWith("neuroflux: "));
  EXPECT_THAT(lines.front(), HasSubstr(part));
}

struct BadUsage {
  const char* name;
  Arguments arguments;
  const char* part;
};

class Usage : public testing::TestWithParam<BadUsage> {};

TEST_P(Usage, IsRefusedInOneLine) {
  const ProgramResult result = Workspace().run(GetParam().arguments);
  expect_one_line(result, 2, GetParam().part);
  EXPECT_EQ(result.out, "");
}

INSTANTIATE_TEST_SUITE_P(
    Bad, Usage,
    testing::Values(
        BadUsage{"NoCommand", {}, "no command"},
        BadUsage{"UnknownCommand", {"comprae"}, "did you mean compare?"},
        BadUsage{"UnknownFlag",
                 {"plan", "--bugdet", "64MiB"},
                 "unknown flag --bugdet; did you mean --budget?"},
        BadUsage{"UnknownFlagWithValue",
                 {"plan", "--bugdet=64MiB"},
                 "unknown flag --bugdet; did you mean --budget?"},
        BadUsage{"UnknownFlagOfEval", {"eval", "--thraeds", "2"}, "did you mean --threads?"},
        BadUsage{"EpochsOfEval", {"eval", "--epochs", "3"}, "unknown flag --epochs"},
        BadUsage{"ZeroEpochsOfPlan", {"plan", "--epochs", "0"}, "--epochs: must be"},
        BadUsage{"StrayArgument", {"plan", "vgg11"}, "unexpected argument \"vgg11\""},
        BadUsage{"MissingValue", {"plan", "--budget"}, "--budget"},
        BadUsage{"FlagTwice", {"plan", "--batch", "1", "--batch", "2"}, "--batch"},
        BadUsage{"UnknownModel", {"plan", "--model", "vgg12"}, "did you mean vgg11?"},
        BadUsage{"SaveOfSeveralBudgets",
                 {"plan", "--budgets", "2MiB,4MiB", "--save", "plan.json"},
                 "--save: goes with one --budget"},
        BadUsage{"ExplainSeveralBudgets",
                 {"plan", "--budgets", "2MiB,4MiB", "--explain"},
                 "--explain: goes with one --budget"},
        BadUsage{"TraceOfSeveralBudgets",
                 {"plan", "--trace", "memory.csv", "--budgets", "2MiB"},
                 "--trace: goes with one --budget"},
        BadUsage{"NegativeBudget", {"plan", "--budget", "-3"}, "--budget"},
        BadUsage{"UnknownUnit", {"plan", "--budget", "12XB"}, "12XB"},
        BadUsage{"NoBudget", {"plan", "--budget", "0"}, "at least one byte"},
        BadUsage{"HugeBudget", {"plan", "--budget", "99999999999TiB"}, "63 bits"},
        BadUsage{"ZeroBatch", {"plan", "--batch", "0"}, "--batch: must be"},
        BadUsage{"BatchNoNumber", {"plan", "--batch", "64x"}, "\"64x\""},
        BadUsage{"BatchTooLarge", {"plan", "--batch", "99999999999999999999"}, "--batch: must be"},
        BadUsage{"RhoAboveOne", {"plan", "--rho", "1.5"}, "[0, 1]"},
        BadUsage{"OneLinearPoint", {"plan", "--linear-points", "1"}, "--linear-points: must be"},
        BadUsage{"ZeroWidth", {"plan", "--width", "0"}, "(0, 16]"},
        BadUsage{"WidthNotANumber", {"plan", "--width", "nan"}, "(0, 16]"},
        BadUsage{"UnknownMethod", {"plan", "--methods", "bp,neuroflx"}, "did you mean neuroflux?"},
        BadUsage{"MethodTwice", {"plan", "--methods", "bp,bp"}, "twice"},
        BadUsage{"UnknownRule", {"plan", "--auxiliary", "clasic"}, "did you mean classic?"},
        BadUsage{"UnknownDevice", {"plan", "--device", "tpu"}, "tpu"},
        BadUsage{"MetaDevice", {"plan", "--device", "meta"}, "computes nothing"},
        BadUsage{"GraphsNeither", {"plan", "--graphs", "yes"}, "--graphs: must be on or off"},
        BadUsage{"GraphsOnCpu", {"plan", "--graphs", "on"}, "not for cpu"},
        BadUsage{"UpdateMoment", {"plan", "--update", "imediate"}, "did you mean immediate?"},
        BadUsage{"CacheType", {"plan", "--cache-dtype", "i32"}, "bf16"},
        BadUsage{"CachePlace", {"plan", "--cache", "tape"}, "disk"},
        BadUsage{"CacheEngine", {"train", "--cache-io", "aio"}, "io_uring"},
        BadUsage{"CacheMemory", {"plan", "--cache-host-memory", "1XB"}, "1XB"},
        BadUsage{"NoViews", {"plan", "--cache-views", "0"}, "--cache-views: must be"},
        BadUsage{"FlatInput", {"plan", "--input", "32x32"}, "as in 32x32x3"},
        BadUsage{"EmptyInput", {"plan", "--input", "32x0x3"}, "as in 32x32x3"},
        BadUsage{"NoTrainingImages",
                 {"plan", "--train-images", "1", "--validation-fraction", "0.9"},
                 "none to train on"},
        BadUsage{"TraceType", {"plan", "--trace", "memory.txt"}, "memory.txt"},
        BadUsage{"TraceFolder", {"plan", "--trace", "nowhere/memory.csv"}, "nowhere"},
        BadUsage{"NoData", {"train"}, "--data"},
        BadUsage{"ZeroEpochs", {"train", "--data", "generated", "--epochs", "0"}, "--epochs"},
        BadUsage{"ZeroRate", {"train", "--data", "generated", "--lr", "0"}, "--lr"},
        BadUsage{"UnknownSchedule",
                 {"train", "--data", "generated", "--schedule", "cosin"},
                 "did you mean cosine?"},
        BadUsage{"NoValidation",
                 {"train", "--data", "generated", "--validation-fraction", "0"},
                 "--validation-fraction"},
        BadUsage{"NoWeights", {"eval", "--data", "generated"}, "WEIGHTS"},
        BadUsage{"NearNoBp",
                 {"compare", "--data", "generated", "--methods", "local,neuroflux",
                  "--exit-within-bp", "0.5"},
                 "bp must be among the methods, and neuroflux behind it"},
        BadUsage{"NearABpBehindIt",
                 {"compare", "--data", "generated", "--methods", "neuroflux,bp", "--exit-within-bp",
                  "0.5"},
                 "bp must be among the methods, and neuroflux behind it"},
        BadUsage{
            "NearBpAndOfAnAccuracy",
            {"compare", "--data", "generated", "--exit-within-bp", "0.5", "--exit-accuracy", "0.9"},
            "does not go with exit-accuracy"},
        BadUsage{"NearByTooMuch",
                 {"compare", "--data", "generated", "--exit-within-bp", "101"},
                 "--exit-within-bp: must be a number in [0, 100]"},
        BadUsage{"NearBpAlone",
                 {"train", "--data", "generated", "--exit-within-bp", "0.5"},
                 "unknown flag --exit-within-bp"},
        BadUsage{"ExportOfNothing", {"export", "--exit", "1"}, "RUN"},
        BadUsage{"ExportOfNoExit", {"export", "run"}, "--exit N or --exit-accuracy X"},
        BadUsage{"ExportOfTwoExits",
                 {"export", "run", "--exit", "1", "--exit-accuracy", "0.5"},
                 "and not both"},
        BadUsage{"ExportOfExitNought", {"export", "run", "--exit", "0"}, "--exit: must be"},
        BadUsage{"NoConfig", {"plan", "--config", "missing.toml"}, "missing.toml"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Config, UnknownKeyNamesFileLineAndNearest) {
  const Workspace workspace;
  workspace.write("run.toml", "# fine\nbatch = 32\nbugdet = \"64MiB\"\n");
  expect_one_line(workspace.run({"plan", "--config", "run.toml"}), 2,
                  "run.toml line 3: unknown key bugdet; did you mean budget?");
}

TEST(Config, BrokenLinesAreNamed) {
  for (const char* line : {"batch", "batch = ", "model = vgg11", "model = \"vgg11", "[net]",
                           "batch = 32 64", "methods = [\"bp\"", "model = \"a\\q\""}) {
    const Workspace workspace;
    workspace.write("run.toml", std::string(line) + "\n");
    SCOPED_TRACE(line);
    expect_one_line(workspace.run({"plan", "--config", "run.toml"}), 2, "run.toml line 1: ");
  }
}

TEST(Config, AKeyMustNotComeTwice) {
  const Workspace workspace;
  workspace.write("run.toml", "batch = 32\nbatch = 64\n");
  expect_one_line(workspace.run({"plan", "--config", "run.toml"}), 2, "batch is given twice");
}

TEST(Config, ValuesObeyTheRulesOfTheirFlags) {
  const Workspace workspace;
  workspace.write("run.toml", "data = \"generated\"\nepochs = 0\n");
  expect_one_line(workspace.run({"train", "--config", "run.toml"}), 2, "--epochs: must be");
}

TEST(Help, TellsCommandsAndExitCodes) {
  const ProgramResult result = Workspace().run({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* word :
       {"plan", "train", "compare", "eval", "export", "kernels", "3 does not fit"})
    EXPECT_THAT(result.out, HasSubstr(word));
}

TEST(Help, TellsDefaultsAndEndsWithAnExample) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> expected{
      {"plan",
       {"--model NAME=vgg11", "--budget BYTES=all", "--rho X=0.4", "--input HxWxC=32x32x3"}},
      {"train",
       {"--method NAME=neuroflux", "--epochs N=6", "--lr X=0.05", "--cache-dtype NAME=bf16"}},
      {"compare",
       {"--methods NAMES=bp,neuroflux", "--schedule NAME=cosine", "--tolerance X=0.005",
        "--exit-within-bp POINTS"}},
      {"eval", {"WEIGHTS", "--batch N=64", "--threads N=0"}},
      {"export", {"RUN", "--exit N", "--method NAME=neuroflux", "--out FILE=exit.safetensors"}}};
  for (const auto& [command, parts] : expected) {
    const ProgramResult result = Workspace().run({command, "--help"});
    EXPECT_EQ(result.exit_code, 0);
    for (const char* part : parts) EXPECT_THAT(result.out, HasSubstr(part));
    const std::vector<std::string> lines = lines_of(result.out);
    ASSERT_GE(lines.size(), 2U);
    EXPECT_THAT(lines.back(), StartsWith("  neuroflux " + std::string(command) + " "));
    EXPECT_EQ(lines[lines.size() - 2], "Example:");
  }
}

TEST(Version, IsTold) {
  const ProgramResult result = Workspace().run({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, testing::MatchesRegex("neuroflux [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

/// What GNU's OpenMP says of itself when the program starts with these variables and none else of
/// its own.
std::string openmp_settings(const std::vector<std::pair<const char*, const char*>>& variables) {
  const auto clear = [] {
    for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}) unsetenv(name);
  };
  clear();
  setenv("OMP_DISPLAY_ENV", "VERBOSE", 1);
  for (const auto& [name, value] : variables) setenv(name, value, 1);
  std::string settings = Workspace().run({"--version"}).err;
  unsetenv("OMP_DISPLAY_ENV");
  clear();
  return settings;
}

TEST(IdleThreads, SleepSoonUnlessTheUserSaysOtherwise) {
  const std::string settings = openmp_settings({});
  if (settings.find("GOMP_SPINCOUNT") == std::string::npos) GTEST_SKIP() << "not GNU's OpenMP";
  EXPECT_THAT(settings, HasSubstr("GOMP_SPINCOUNT = '1000'"));
  EXPECT_THAT(openmp_settings({{"GOMP_SPINCOUNT", "7"}}), HasSubstr("GOMP_SPINCOUNT = '7'"));
  EXPECT_THAT(openmp_settings({{"OMP_WAIT_POLICY", "PASSIVE"}}), HasSubstr("GOMP_SPINCOUNT = '0'"));
}

TEST(InstructionSet, IsOneOfThoseThatThereAre) {
  setenv("NEUROFLUX_CPU_ISA", "avx3", 1);
  const ProgramResult result = Workspace().run({"plan", "--model", "vgg11"});
  unsetenv("NEUROFLUX_CPU_ISA");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err,
            "neuroflux: NEUROFLUX_CPU_ISA=avx3: unknown (known: baseline, avx2, avx512)\n");
}

}  // namespace
}  // namespace nf::test
