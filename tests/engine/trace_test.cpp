#include "engine/memory/trace.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/expect.h"
#include "tests/support/file_size_limit.h"

namespace nf::test {
namespace {

class SmallRange : public AddressRange {
 public:
  std::byte* base() const override { return reinterpret_cast<std::byte*>(0x100000); }
  std::int64_t bytes() const override { return 4096; }
};

class Trace : public ::testing::Test {
 protected:
  Trace() : pool_(std::make_unique<SmallRange>(), 256) {
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    directory_ = std::filesystem::path(::testing::TempDir()) / ("trace_" + test);
    std::filesystem::create_directories(directory_);
    trace_.set_stage("block 2");
    pool_.set_trace(&trace_);
    const PhaseScope phase("forward");
    const UnitScope unit("block 1, \"stem\"");
    const OpScope op("conv2d");
    std::byte* a = pool_.allocate(1000, Category::activation);
    std::byte* b = pool_.allocate(10, Category::workspace);
    pool_.free(b);
    EXPECT_THROW(pool_.allocate(5000, Category::gradient), OutOfBudget);
    pool_.free(a);
    pool_.set_trace(nullptr);
    pool_.free(pool_.allocate(1, Category::input));
  }
  ~Trace() override { std::filesystem::remove_all(directory_); }

  std::string written(const std::string& name) const {
    trace_.write(directory_ / name);
    return read(name);
  }
  std::string read(const std::string& name) const {
    std::ifstream in(directory_ / name);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  MemoryTrace trace_;
  Pool pool_;
  std::filesystem::path directory_;
};

/// One row of comma-separated values, quotes undone.
std::vector<std::string> csv_row(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"')
      fields.back() += line[++i];
    else if (line[i] == '"')
      quoted = !quoted;
    else if (line[i] == ',' && !quoted)
      fields.emplace_back();
    else
      fields.back() += line[i];
  }
  return fields;
}

TEST_F(Trace, RecordsEveryEventWithItsTags) {
  ASSERT_EQ(trace_.events().size(), 5U) << "nothing after the trace was taken away";
  const MemoryEvent& first = trace_.events()[0];
  EXPECT_EQ(first.action, MemoryAction::allocate);
  EXPECT_EQ(first.address, 0x100000U);
  EXPECT_EQ(first.asked, 1000);
  EXPECT_EQ(first.granted, 1024);
  EXPECT_EQ(first.live, 1024);
  EXPECT_EQ(first.category, Category::activation);
  EXPECT_EQ(first.op, "conv2d");
  EXPECT_EQ(first.unit, "block 1, \"stem\"");
  EXPECT_EQ(first.phase, "forward");
  EXPECT_EQ(trace_.events()[1].live, 1280);
  const MemoryEvent& freed = trace_.events()[2];
  EXPECT_EQ(freed.action, MemoryAction::free);
  EXPECT_EQ(freed.address, 0x100400U);
  EXPECT_EQ(freed.live, 1024);
  const MemoryEvent& refused = trace_.events()[3];
  EXPECT_EQ(refused.action, MemoryAction::out_of_budget);
  EXPECT_EQ(refused.asked, 5000);
  EXPECT_EQ(refused.granted, 0);
  EXPECT_EQ(refused.live, 1024);
  for (std::size_t i = 1; i < trace_.events().size(); ++i)
    EXPECT_GE(trace_.events()[i].time_ns, trace_.events()[i - 1].time_ns);
}

TEST_F(Trace, CsvReadsBack) {
  std::istringstream text(written("events.csv"));
  std::string line;
  std::getline(text, line);
  EXPECT_EQ(line,
            "time_ns,action,address,asked,granted,live,reserved,category,op,unit,phase,stage");
  std::size_t rows = 0;
  for (; std::getline(text, line); ++rows) {
    const std::vector<std::string> row = csv_row(line);
    const MemoryEvent& e = trace_.events().at(rows);
    ASSERT_EQ(row.size(), 12U) << line;
    EXPECT_EQ(std::stoll(row[0]), e.time_ns);
    EXPECT_EQ(std::stoull(row[2], nullptr, 16), e.address);
    EXPECT_EQ(std::stoll(row[3]), e.asked);
    EXPECT_EQ(std::stoll(row[4]), e.granted);
    EXPECT_EQ(std::stoll(row[5]), e.live);
    EXPECT_EQ(std::stoll(row[6]), e.reserved);
    EXPECT_EQ(row[7], to_string(e.category));
    EXPECT_EQ(row[8], e.op);
    EXPECT_EQ(row[9], e.unit);
    EXPECT_EQ(row[10], e.phase);
    EXPECT_EQ(row[11], "block 2");
  }
  EXPECT_EQ(rows, 5U);
}

TEST_F(Trace, JsonReadsBack) {
  const nlohmann::json json = nlohmann::json::parse(written("events.json"));
  EXPECT_EQ(json.at("schemaVersion"), 1);
  std::size_t instants = 0, tracks = 0, pools = 0, stages = 0;
  for (const nlohmann::json& event : json.at("traceEvents")) {
    if (event.at("ph") == "M") continue;
    if (event.at("name") == "live bytes") {
      const MemoryEvent& e = trace_.events().at(tracks++);
      for (int i = 0; i < kCategories; ++i)
        EXPECT_EQ(event.at("args").at(to_string(static_cast<Category>(i))),
                  e.by_category[static_cast<std::size_t>(i)]);
    } else if (event.at("name") == "block 2") {
      EXPECT_EQ(event.at("ph"), "i");
      EXPECT_EQ(instants, 0U);
      ++stages;
    } else if (event.at("name") == "pool") {
      const MemoryEvent& e = trace_.events().at(pools++);
      EXPECT_EQ(event.at("args").at("live"), e.live);
      EXPECT_EQ(event.at("args").at("reserved"), e.reserved);
    } else {
      const MemoryEvent& e = trace_.events().at(instants++);
      EXPECT_EQ(event.at("ph"), "i");
      EXPECT_EQ(event.at("args").at("op"), e.op);
      EXPECT_EQ(event.at("args").at("unit"), e.unit);
      EXPECT_EQ(event.at("args").at("asked"), e.asked);
      EXPECT_EQ(event.at("args").at("granted"), e.granted);
      EXPECT_NEAR(event.at("ts").get<double>() * 1000, static_cast<double>(e.time_ns), 0.5);
    }
  }
  EXPECT_EQ(stages, 1U);
  EXPECT_EQ(instants, 5U);
  EXPECT_EQ(tracks, 5U);
  EXPECT_EQ(pools, 5U);
}

TEST_F(Trace, RefusesOtherFilesAndPlaces) {
  EXPECT_EQ(error_text([&] { trace_.write("events.txt"); }),
            "trace: the file must end in .json (Chrome trace) or .csv, got 'events.txt'");
  const std::filesystem::path nowhere = directory_ / "none" / "events.csv";
  EXPECT_EQ(error_text([&] { trace_.write(nowhere); }),
            fmt::format("file: cannot create {}.tmp: No such file or directory", nowhere.string()));
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(Trace, AFailedWriteLeavesWhatWasThere) {
  const std::string before = written("events.csv");
  for (const char* name : {"events.csv", "events.json"}) {
    const FileSizeLimit limit(100);
    EXPECT_EQ(error_text([&] { trace_.write(directory_ / name); }),
              fmt::format("file: cannot write {}.tmp at byte 100: File too large",
                          (directory_ / name).string()));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
  EXPECT_EQ(read("events.csv"), before);
}

TEST_F(Trace, SurvivesAUnitThatIsNotUtf8) {
  pool_.set_trace(&trace_);
  {
    const UnitScope unit("Andr\xe9");
    pool_.free(pool_.allocate(1, Category::input));
  }
  pool_.set_trace(nullptr);
  const nlohmann::json json = nlohmann::json::parse(written("events.json"));
  EXPECT_EQ(json.at("traceEvents").back().at("args").at("unit"), "Andr\xef\xbf\xbd");
}

TEST(Scopes, NestAndRestore) {
  EXPECT_EQ(memory_tags().op, "");
  {
    const OpScope outer("outer");
    const UnitScope unit("a");
    {
      const OpScope inner("inner");
      const UnitScope deeper("b");
      EXPECT_EQ(memory_tags().op, "inner");
      EXPECT_EQ(memory_tags().unit, "b");
    }
    EXPECT_EQ(memory_tags().op, "outer");
    EXPECT_EQ(memory_tags().unit, "a");
  }
  EXPECT_EQ(memory_tags().op, "");
  EXPECT_EQ(memory_tags().unit, "");
}

}  // namespace
}  // namespace nf::test
