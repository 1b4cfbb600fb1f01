#include "nn/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "engine/error.h"
#include "engine/random.h"

namespace nf::nn {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

class Safetensors : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              fmt::format("safetensors_{}_{}", info->name(), ::getpid());
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "weights.safetensors";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string contents() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  void write(const std::string& header, const std::string& data) const {
    const std::uint64_t length = header.size();
    std::string prefix(8, '\0');
    std::memcpy(prefix.data(), &length, 8);
    write(prefix + header + data);
  }
  /// The file is refused with a message of one line that names it and says `what`.
  void expect_refused(const std::string& what) const {
    EXPECT_THAT([this] { read_safetensors(path_); },
                ThrowsMessage<DataError>(
                    AllOf(HasSubstr(path_.string()), HasSubstr(what), Not(HasSubstr("\n")))));
  }

  std::filesystem::path folder_, path_;
};

Weights example() {
  Weights weights;
  HostTensor filters{{2, 2, 3, 4}, {}};  // (O, KH, KW, I)
  for (int i = 0; i < 48; ++i) filters.values.push_back(static_cast<float>(i));
  weights.tensors["conv.weight"] = filters;
  weights.tensors["fc.bias"] = {
      {3},
      {-0.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::denorm_min()}};
  weights.tensors["scale"] = {Shape{}, {2.5F}};
  weights.tensors["nothing"] = {{0, 4}, {}};
  weights.metadata = {{"model", "vgg11"}, {"note", "line\nbreak \"quoted\""}};
  return weights;
}

TEST_F(Safetensors, RoundTrips) {
  const Weights weights = example();
  write_safetensors(path_, weights);
  const Weights back = read_safetensors(path_);
  EXPECT_EQ(back.tensors, weights.tensors);
  EXPECT_EQ(back.metadata, weights.metadata);
  EXPECT_TRUE(std::signbit(back.tensors.at("fc.bias").values[0]));
  // Only the finished file is left, also when it replaces one.
  write_safetensors(path_, {.tensors = {{"x", {{1}, {1.0F}}}}, .metadata = {}});
  EXPECT_EQ(read_safetensors(path_).tensors.size(), 1U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(Safetensors, FilesHoldPyTorchsLayout) {
  Weights weights;
  weights.tensors["w"] = example().tensors.at("conv.weight");
  write_safetensors(path_, weights);
  const std::string bytes = contents();
  EXPECT_THAT(bytes, HasSubstr("\"shape\":[2,4,2,3]"));
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ(header % 8, 0U);
  ASSERT_EQ(bytes.size(), 8 + header + 48 * 4);
  std::vector<float> values(48);
  std::memcpy(values.data(), bytes.data() + 8 + header, 48 * 4);
  std::size_t at = 0;
  for (int o = 0; o < 2; ++o)
    for (int i = 0; i < 4; ++i)
      for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 3; ++x)
          EXPECT_EQ(values[at++], static_cast<float>(((o * 2 + y) * 3 + x) * 4 + i));
}

TEST_F(Safetensors, ReadsHalvesAndLeavesOutCounters) {
  const std::string header =
      R"({"f":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
      R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},)"
      R"("bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[8,16]}})";
  const std::uint16_t halves[4] = {0x3c00, 0xc100, 0x3f80, 0xc020};  // 1, -2.5 in each format
  std::string data(reinterpret_cast<const char*>(halves), 8);
  data.append(8, '\0');
  write(header, data);
  const Weights weights = read_safetensors(path_);
  EXPECT_EQ(weights.tensors.size(), 2U);
  EXPECT_EQ(weights.tensors.at("f").values, (std::vector<float>{1.0F, -2.5F}));
  EXPECT_EQ(weights.tensors.at("b").values, (std::vector<float>{1.0F, -2.5F}));
}

TEST_F(Safetensors, RefusesEveryTruncationAndExtension) {
  write_safetensors(path_, example());
  const std::string bytes = contents();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    write(bytes.substr(0, size));
    EXPECT_THROW(read_safetensors(path_), DataError) << size << " of " << bytes.size();
  }
  write(bytes + '\0');
  expect_refused("the values must end with the file");
}

TEST_F(Safetensors, SurvivesAnyChangedByte) {
  write_safetensors(path_, example());
  const std::string bytes = contents();
  RandomStream random(random_key(1, Purpose::test));
  int refused = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::string damaged = bytes;
    const std::uint64_t changes = 1 + random.below(3);
    for (std::uint64_t i = 0; i < changes; ++i)
      damaged[random.below(bytes.size())] = static_cast<char>(random.below(256));
    write(damaged);
    try {
      read_safetensors(path_);
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST_F(Safetensors, NamesEachDamage) {
  std::filesystem::remove(path_);
  expect_refused("it must be a file that exists");
  write("short");
  expect_refused("at least 8 bytes, got 5");
  write(std::string(8, '\xff') + "{}");
  expect_refused("got 18446744073709551615");
  write(R"({"a":)", "");
  expect_refused("valid JSON");
  write("{\"\xff\":1}", "");
  expect_refused("valid JSON");
  write("[1]", "");
  expect_refused("must be a JSON object");
  write(std::string(5000, '[') + std::string(5000, ']'), "");
  expect_refused("must not be nested");
  write(R"({"__metadata__":3})", "");
  expect_refused("__metadata__ must be an object");
  write(R"({"__metadata__":{"a":3}})", "");
  expect_refused("\"a\" is not one");
  write(R"({"a\nb":3})", "");
  expect_refused("must be an object");

  const auto entry = [&](const char* fields, std::size_t bytes) {
    write(fmt::format("{{\"w\":{{{}}}}}", fields), std::string(bytes, '\0'));
  };
  entry(R"("shape":[1],"data_offsets":[0,4])", 4);
  expect_refused("tensor \"w\" must have a dtype");
  entry(R"("dtype":"F64","shape":[1],"data_offsets":[0,8])", 8);
  expect_refused("must be F32, F16 or BF16, got \"F64\"");
  entry(R"("dtype":"I64","shape":[],"data_offsets":[0,8])", 8);
  expect_refused("must be F32, F16 or BF16, got \"I64\"");
  entry(R"("dtype":"F32","data_offsets":[0,4])", 4);
  expect_refused("must have a list shape");
  entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", 4);
  expect_refused("shape must hold whole numbers from 0, got -1");
  entry(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])", 4);
  expect_refused("got 1.5");
  entry(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])", 4);
  expect_refused("got 18446744073709551615");
  entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4])", 4);
  expect_refused("at most 6 dimensions, got 7");
  entry(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4])", 4);
  expect_refused("is too large");
  entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])", 8);
  expect_refused("data_offsets must be a range within 8 bytes, got [0,4,8]");
  entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])", 4);
  expect_refused("got [4,0]");
  entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 4);
  expect_refused("within 4 bytes, got [0,8]");
  entry(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", 8);
  expect_refused("takes 12 bytes, data_offsets give 8");

  const auto two = [&](const char* first, int begin, int end, std::size_t bytes) {
    write(fmt::format(R"({{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},)"
                      R"("w":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}}})",
                      first, begin, end),
          std::string(bytes, '\0'));
  };
  two("v", 4, 8, 8);
  EXPECT_EQ(read_safetensors(path_).tensors.size(), 2U);
  two("v", 0, 4, 4);
  expect_refused("must begin at 4, where the one before it ends, got 0");
  two("v", 8, 12, 12);
  expect_refused("tensor \"w\" must begin at 4");
  two("w", 4, 8, 8);
  expect_refused("a name must come once, got \"w\" twice");
}

TEST_F(Safetensors, WritingFailsWithTheFilesNameAndLeavesNothing) {
  const std::filesystem::path nowhere = folder_ / "no" / "such" / "w.safetensors";
  EXPECT_THAT([&] { write_safetensors(nowhere, example()); },
              ThrowsMessage<Error>(AllOf(HasSubstr(nowhere.string()), HasSubstr("cannot create"))));
  // A folder can't be replaced by a file: the last step fails, and the temporary file goes.
  std::filesystem::create_directories(path_ / "full");
  EXPECT_THAT([&] { write_safetensors(path_, example()); },
              ThrowsMessage<Error>(HasSubstr("cannot rename")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  std::filesystem::remove_all(path_);
  Weights wrong = example();
  wrong.tensors["fc.bias"].values.pop_back();
  EXPECT_THAT([&] { write_safetensors(path_, wrong); },
              ThrowsMessage<Error>(HasSubstr("tensor fc.bias [3] must have 3 values, got 2")));
  Weights latin = example();
  latin.metadata["author"] = "Andr\xe9";
  EXPECT_THAT([&] { write_safetensors(path_, latin); },
              ThrowsMessage<Error>(HasSubstr("must be UTF-8")));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace nf::nn
