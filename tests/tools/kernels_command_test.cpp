// neuroflux kernels, from the outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tools/program.h"

namespace nf::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

void expect_refused(const Arguments& arguments, const std::string& part) {
  SCOPED_TRACE(testing::PrintToString(arguments));
  const ProgramResult result = Workspace().run(Arguments{"kernels"} + arguments);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  const std::vector<std::string> lines = lines_of(result.err);
  ASSERT_EQ(lines.size(), 1U) << result.err;
  EXPECT_THAT(lines.front(), StartsWith("neuroflux: "));
  EXPECT_THAT(lines.front(), HasSubstr(part));
}

TEST(KernelsCommand, WrongUsageIsOneLine) {
  expect_refused({"--batch", "0"}, "--batch: must be a whole number of at least 1");
  expect_refused({"--channels", "many"}, "\"many\"");
  expect_refused({"--dtype", "f64"}, "--dtype: must be one of f32, bf16, f16");
  expect_refused({"--dtype", "f32,f16"}, "--dtype");
  expect_refused({"--seed", "-1"}, "--seed");
  expect_refused({"--kernel", ""}, "--kernel: must not be empty");
  expect_refused({"--chanels", "4"}, "unknown flag --chanels; did you mean --channels?");
  expect_refused({"--budget", "64MiB"}, "unknown flag --budget");
  expect_refused({"add"}, "unexpected argument \"add\"");
  expect_refused({"--batch", "65536", "--height", "65536", "--width", "65536"},
                 "65536x65536x65536x64 is more than 268435456 elements");
}

TEST(KernelsCommand, HelpEndsWithAnExample) {
  const ProgramResult result = Workspace().run({"kernels", "--help"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* part : {"--batch N=8", "--height N=16", "--width N=16", "--channels N=64",
                           "--dtype NAME=f32", "--kernel NAME", "--seed N=1", "--json"})
    EXPECT_THAT(result.out, HasSubstr(part));
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_GE(lines.size(), 2U);
  EXPECT_EQ(lines[lines.size() - 2], "Example:");
  EXPECT_THAT(lines.back(), StartsWith("  neuroflux kernels "));
}

#if defined(NF_SIMT)

json look(const Arguments& more) {
  const ProgramResult result = Workspace().run(Arguments{"kernels", "--json"} + more);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return json::parse(result.out);
}

const json& launcher_of(const json& document, const std::string& name, const std::string& variant) {
  for (const json& launcher : document.at("launchers"))
    if (launcher.at("launcher") == name && launcher.at("variant") == variant) return launcher;
  throw std::runtime_error("no launcher " + name + "/" + variant);
}

TEST(KernelsCommand, AddMovesEachOperandOnce) {
  const json document = look({"--kernel", "add", "--batch", "2", "--height", "4", "--width", "8",
                              "--channels", "64", "--dtype", "f32"});
  EXPECT_EQ(document.at("batch"), 2);
  EXPECT_EQ(document.at("height"), 4);
  EXPECT_EQ(document.at("width"), 8);
  EXPECT_EQ(document.at("channels"), 64);
  EXPECT_EQ(document.at("dtype"), "f32");
  EXPECT_EQ(document.at("seed"), 1);
  const std::int64_t bytes = 2 * 4 * 8 * 64 * 4;
  const json& add = launcher_of(document, "add", "");
  EXPECT_EQ(add.at("family"), "elementwise");
  EXPECT_EQ(add.at("must_read_bytes"), 2 * bytes);
  EXPECT_EQ(add.at("must_write_bytes"), bytes);
  EXPECT_EQ(add.at("must_bytes"), 3 * bytes);
  EXPECT_EQ(add.at("moved_bytes"), 3 * bytes);
  EXPECT_EQ(add.at("ratio"), 1.0);
  ASSERT_EQ(add.at("kernels").size(), 1U);
  const json& kernel = add.at("kernels").front();
  EXPECT_EQ(kernel.at("launches"), 1);
  // A warp's lanes have 16 bytes each.
  EXPECT_EQ(kernel.at("requests"), 3 * bytes / 512);
  EXPECT_EQ(kernel.at("sectors"), 3 * bytes / 32);
  EXPECT_EQ(kernel.at("asked_bytes"), 3 * bytes);
  EXPECT_EQ(kernel.at("moved_bytes"), 3 * bytes);
  EXPECT_EQ(kernel.at("efficiency"), 1.0);
  EXPECT_EQ(kernel.at("footprint_bytes"), 3 * bytes);
  for (const char* none :
       {"shared_requests", "shared_passes", "worst_conflict", "shared_bytes", "barriers"})
    EXPECT_EQ(kernel.at(none), 0) << none;
}

TEST(KernelsCommand, HalvesTheBytesOfHalfTheWidth) {
  const Arguments size{"--kernel", "axpy", "--batch", "1"};
  const json wide = look(size), narrow = look(size + Arguments{"--dtype", "bf16"});
  EXPECT_EQ(narrow.at("dtype"), "bf16");
  EXPECT_EQ(launcher_of(wide, "axpy", "").at("moved_bytes").get<std::int64_t>(),
            2 * launcher_of(narrow, "axpy", "").at("moved_bytes").get<std::int64_t>());
}

TEST(KernelsCommand, LooksAtAllLaunchersAtOddSizes) {
  const json document = look({"--batch", "3", "--height", "5", "--width", "7", "--channels", "13",
                              "--dtype", "f16", "--seed", "7"});
  EXPECT_GT(document.at("launchers").size(), 40U);
  for (const json& launcher : document.at("launchers")) {
    EXPECT_FALSE(launcher.at("kernels").empty()) << launcher;
    EXPECT_GT(launcher.at("must_bytes"), 0) << launcher;
    for (const json& kernel : launcher.at("kernels"))
      EXPECT_GT(kernel.at("requests"), 0) << launcher;
  }
}

TEST(KernelsCommand, TableIsForPeople) {
  const ProgramResult result = Workspace().run(
      {"kernels", "--kernel", "reduce_all", "--batch", "1", "--height", "2", "--width", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 3U) << result.out;
  for (const char* column :
       {"kernel", "launcher", "requests", "sectors", "asked B", "moved B", "asked/moved",
        "footprint B", "must B", "moved/must", "shared req", "passes", "conflict", "barriers"})
    EXPECT_THAT(lines[0], HasSubstr(column));
  EXPECT_EQ(lines[1].size(), lines[0].size());
  EXPECT_EQ(lines[2].size(), lines[0].size());
}

TEST(KernelsCommand, NamesTheNearestLauncher) {
  expect_refused({"--kernel", "batch_norm_bakward"}, "did you mean batch_norm_backward?");
}

#else

TEST(KernelsCommand, SaysThatThereIsNoEmulator) {
  const ProgramResult result = Workspace().run({"kernels"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  ASSERT_EQ(lines_of(result.err).size(), 1U) << result.err;
  EXPECT_THAT(result.err, HasSubstr("NF_SIMT=OFF"));
}

#endif

}  // namespace
}  // namespace nf::test
