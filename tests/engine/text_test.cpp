#include "engine/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "engine/error.h"

namespace nf {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(NearestName, HasTheLeastEditDistance) {
  const std::vector<std::string> names{"vgg11", "resnet18", "mobilenet_v1"};
  EXPECT_EQ(nearest_name("vgg1", names), "vgg11");
  EXPECT_EQ(nearest_name("rsenet81", names), "resnet18");
  EXPECT_EQ(nearest_name("mobilenet", names), "mobilenet_v1");
  EXPECT_EQ(nearest_name("", names), "vgg11");
  EXPECT_EQ(nearest_name("kitten", std::vector<std::string>{"sitting", "mitten"}), "mitten");
  EXPECT_EQ(nearest_name("x", {}), "");
}

TEST(ParseBytes, KnowsBinaryAndDecimalUnits) {
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("7B"), 7);
  EXPECT_EQ(parse_bytes("64MiB"), std::int64_t{64} << 20);
  EXPECT_EQ(parse_bytes("64M"), std::int64_t{64} << 20);
  EXPECT_EQ(parse_bytes("64 mib"), std::int64_t{64} << 20);
  EXPECT_EQ(parse_bytes("3k"), 3072);
  EXPECT_EQ(parse_bytes("1.5GiB"), std::int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("2KB"), 2000);
  EXPECT_EQ(parse_bytes("0.5MB"), 500'000);
  EXPECT_EQ(parse_bytes("2GB"), 2'000'000'000);
  EXPECT_EQ(parse_bytes("1T"), std::int64_t{1} << 40);
  EXPECT_EQ(parse_bytes("1.9B"), 1);
  EXPECT_EQ(parse_bytes("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
}

TEST(ParseBytes, RefusesAnythingElse) {
  for (const char* text : {"-3", "", "MiB", "12XB", "12MiBs", "12 M B", "1e3", "+4", "1.", "1.M",
                           ".5M", "0x10", "12Ki", "nan", " 12"})
    EXPECT_THAT([=] { parse_bytes(text); },
                ThrowsMessage<Error>(HasSubstr("got \"" + std::string(text) + "\"")));
  for (const char* text : {"0", "0MiB", "0.1B"})
    EXPECT_THAT([=] { parse_bytes(text); }, ThrowsMessage<Error>(HasSubstr("at least one byte")));
  for (const char* text : {"9223372036854775808", "99999999999999999999999", "9000000T"})
    EXPECT_THAT([=] { parse_bytes(text); }, ThrowsMessage<Error>(HasSubstr("63 bits")));
}

TEST(FormatBytes, ShowsOneDecimalOfTheFittingUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(std::int64_t{64} << 20), "64.0 MiB");
  EXPECT_EQ(format_bytes(std::int64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(format_bytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(-2048), "-2.0 KiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<std::int64_t>::max()), "8.0 EiB");
}

TEST(FormatBytesUp, ReadBackIsNoLess) {
  EXPECT_EQ(format_bytes_up(1023), "1023 B");
  EXPECT_EQ(format_bytes_up(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes_up(1025), "1.1 KiB");
  EXPECT_EQ(format_bytes_up((1 << 20) - 1), "1024.0 KiB");
  EXPECT_EQ(format_bytes_up((std::int64_t{19} << 19) + 1), "9.6 MiB");
  for (std::int64_t bytes = 1; bytes < std::int64_t{1} << 50; bytes = bytes * 3 / 2 + 1) {
    const std::int64_t back = parse_bytes(format_bytes_up(bytes));
    EXPECT_GE(back, bytes);
    EXPECT_LE(static_cast<double>(back), 1.1 * static_cast<double>(bytes));
  }
}

}  // namespace
}  // namespace nf
