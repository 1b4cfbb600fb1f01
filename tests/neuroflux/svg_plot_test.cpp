#include "neuroflux/report/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/error.h"
#include "neuroflux/report/figures.h"
#include "neuroflux/report/sections.h"

namespace nf::report {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(NiceTicks, AreRoundNumbersWithinTheRange) {
  EXPECT_THAT(nice_ticks(0.0, 1.0, 5), ElementsAre(0.0, DoubleEq(0.2), DoubleEq(0.4),
                                                   DoubleEq(0.2 * 3), DoubleEq(0.8), 1.0));
  EXPECT_THAT(nice_ticks(-3.0, 12.0, 3), ElementsAre(0.0, 5.0, 10.0));
  EXPECT_THAT(nice_ticks(0.0, 24.0 * 0x1p20, 5, 1024),
              ElementsAre(0.0, 0x1p22, 0x1p23, 3 * 0x1p22, 0x1p24, 5 * 0x1p22, 6 * 0x1p22));
  EXPECT_FALSE(std::signbit(nice_ticks(-1e-14, 12.0, 5).front()));  // shown as "0", not "-0"
}

TEST(NiceTicks, AreFewAscendingAndInsideWhateverTheRange) {
  for (const double low : {-1e300, -7.3, 0.0, 1e-300, 0.123, 5.0, 1e15})
    for (const double size : {1e-12, 0.031, 1.0, 9.99, 47.0, 1e6, 1e300}) {
      const double high = low + size;
      if (!(low < high)) continue;
      for (const int base : {10, 1024}) {
        const std::vector<double> ticks = nice_ticks(low, high, 5, base);
        ASSERT_GE(ticks.size(), 1U);
        EXPECT_LE(ticks.size(), 11U) << low << " to " << high;
        for (std::size_t i = 0; i < ticks.size(); ++i) {
          EXPECT_GE(ticks[i], low - size * 1e-6);
          EXPECT_LE(ticks[i], high + size * 1e-6);
          EXPECT_TRUE(i == 0 || ticks[i] > ticks[i - 1]) << low << " to " << high;
        }
      }
    }
}

TEST(NiceTicks, RefuseEndsThatAreNone) {
  EXPECT_THROW(nice_ticks(1.0, 1.0, 5), Error);
  EXPECT_THROW(nice_ticks(0.0, kInfinity, 5), Error);
  EXPECT_THROW(nice_ticks(std::nan(""), 1.0, 5), Error);
  EXPECT_THROW(log_ticks(0.0, 1.0), Error);
}

TEST(LogTicks, AreDenserWhereDecadesAreFew) {
  EXPECT_THAT(log_ticks(90.0, 1100.0),
              ElementsAre(DoubleEq(100), DoubleEq(200), DoubleEq(500), DoubleEq(1000)));
  EXPECT_THAT(log_ticks(1.0, 1e4),
              ElementsAre(1, DoubleEq(10), DoubleEq(100), DoubleEq(1000), DoubleEq(1e4)));
  EXPECT_LE(log_ticks(1e-100, 1e100).size(), 12U);
  EXPECT_THAT(log_ticks(6.1, 6.2), ElementsAre(6.1));
}

TEST(EscapeMarkup, LeavesNothingThatEndsATextOrAnAttribute) {
  EXPECT_EQ(escape_markup("a<b>&\"c\" 'd'"), "a&lt;b&gt;&amp;&quot;c&quot; &#39;d&#39;");
  EXPECT_EQ(escape_markup("läuft 日本 🙂"), "läuft 日本 🙂");
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(escape_markup(std::string("a\0b\x1b", 4)), "a" + bad + "b" + bad);
  EXPECT_EQ(escape_markup("x\xFFy\xC3"), "x" + bad + "y" + bad);
  EXPECT_EQ(escape_markup("\xC0\xBC"), bad + bad);            // "<" in too long a form
  EXPECT_EQ(escape_markup("\xED\xA0\x80"), bad + bad + bad);  // half of a surrogate pair
}

TEST(LabelPlacer, KeepsLabelsApartAndInside) {
  const Box area{0, 0, 300, 200};
  LabelPlacer placer(area);
  std::vector<Box> placed;
  for (int i = 0; i < 60; ++i)
    if (const auto label = placer.place(10.0 + 37 * i % 280, 10.0 + 53 * i % 180, "label", 12))
      placed.push_back(label->box);
  EXPECT_GT(placed.size(), 20U);
  EXPECT_LT(placed.size(), 60U);  // there is no room for all
  for (std::size_t i = 0; i < placed.size(); ++i) {
    EXPECT_TRUE(placed[i].within(area));
    for (std::size_t k = 0; k < i; ++k) EXPECT_FALSE(placed[i].overlaps(placed[k]));
  }
}

XyPlot plot_of(std::vector<Svg::Point> line) {
  XyPlot plot{.text = {"title", ""}, .x = {"x", format_count}, .y = {"y", format_count}};
  plot.series.push_back({.name = "series", .colour = "c0", .line = std::move(line)});
  return plot;
}

TEST(XyPlot, PutsValuesWhereTheAxesSay) {
  XyPlot plot = plot_of({{0, 0}, {10, 100}});
  plot.x.tight = true;
  plot.y.from_zero = true;
  const std::string html = draw(plot);
  // From the lower left corner of the axes to the right edge, 5% below the upper one.
  EXPECT_THAT(html, testing::ContainsRegex("points=\"[0-9.]+,292 624,36.8\""));
}

TEST(XyPlot, RefusesValuesThatCanNotBeDrawn) {
  EXPECT_THROW(draw(plot_of({{0, 0}, {1, std::nan("")}})), Error);
  EXPECT_THROW(draw(plot_of({{kInfinity, 0}})), Error);
  XyPlot logarithmic = plot_of({{0, 1}, {1, 1}});
  logarithmic.x.logarithmic = true;
  EXPECT_THROW(draw(logarithmic), Error);
  XyPlot areas = plot_of({});
  areas.areas = {{0, 1, 2}, {{"level", "m0", {1, 2}}}};
  EXPECT_THROW(draw(areas), Error);
}

TEST(XyPlot, DrawsASinglePointAndSaysWhereThereIsNone) {
  EXPECT_THAT(draw(plot_of({})), HasSubstr("no values were recorded"));
  XyPlot one = plot_of({});
  one.series[0].marks = {{.x = 5, .y = 0}};
  EXPECT_THAT(draw(one), HasSubstr("<circle"));
  one.x.logarithmic = true;
  EXPECT_THAT(draw(one), HasSubstr("<circle"));
}

TEST(XyPlot, EscapesEveryName) {
  const std::string name = "\"><script>&'";
  XyPlot plot = plot_of({{0, 0}, {1, 1}});
  plot.text = {name, name};
  plot.x.label = plot.y.label = name;
  plot.series[0].name = plot.series[0].tooltip = name;
  plot.series[0].marks = {{.x = 0.5, .y = 0.5, .tooltip = name, .label = name}};
  plot.references = {{0.7, name}};
  plot.bands = {{0, 1, name}};
  plot.areas = {{0, 1}, {{name, "m0", {0.1, 0.2}}}};
  const std::string html = draw(plot);
  EXPECT_THAT(html, Not(HasSubstr("<script>")));
  std::size_t escaped = 0;
  for (std::size_t at = 0; (at = html.find("&quot;&gt;&lt;script&gt;&amp;&#39;", at)) != html.npos;
       ++at)
    ++escaped;
  // Title twice, caption, two axes, legend twice, tooltips of line, mark, area and band, labels of
  // mark, reference and band.
  EXPECT_EQ(escaped, 14U);
}

TEST(XyPlot, StacksAreasOnEachOther) {
  XyPlot plot = plot_of({});
  plot.y.from_zero = true;
  plot.x.tight = true;
  plot.areas = {{0, 1}, {{"low", "m0", {10, 10}}, {"high", "m1", {20, 30}}}};
  const std::string html = draw(plot);
  // 42 units upwards in 268 of the picture: 10 is at 228.2, 30 at 100.6, 40 at 36.8.
  EXPECT_THAT(html, testing::ContainsRegex("m0\" points=\"624,292 [^\"]*624,228.2\""));
  EXPECT_THAT(html, testing::ContainsRegex("m1\" points=\"624,228.2 [^\"]*,100.6 624,36.8\""));
}

TEST(BarPlot, DrawsPartsOneBehindTheOther) {
  BarPlot plot{.text = {"bars", ""},
               .x = {"time", format_seconds},
               .names = {"a", "b"},
               .colours = {"c4", "c5"},
               .bars = {{"<bar>", {1.0, 3.0}}, {"none", {0.0, 0.0}, true}}};
  const std::string html = draw(plot);
  EXPECT_THAT(html, HasSubstr("&lt;bar&gt;: a 1 s"));
  EXPECT_THAT(html, HasSubstr("&lt;bar&gt;: b 3 s"));
  plot.bars[0].parts = {1.0};
  EXPECT_THROW(draw(plot), Error);
  plot.bars[0].parts = {1.0, -1.0};
  EXPECT_THROW(draw(plot), Error);
}

TEST(ParetoFront, IsWhatNoCheaperOneBeats) {
  //                        dearer, worse   same cost   cheapest   the same again
  EXPECT_THAT(pareto_front({{5, 0.5}, {3, 0.7}, {3, 0.6}, {1, 0.2}, {9, 0.9}, {9, 0.9}, {2, 0.2}}),
              ElementsAre(3U, 1U, 4U));
  EXPECT_TRUE(pareto_front({}).empty());
}

TEST(Figures, AreForPeople) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.6), "1 k");
  EXPECT_EQ(format_count(245738), "246 k");
  EXPECT_EQ(format_count(2309610), "2.31 M");
  EXPECT_EQ(format_seconds(0), "0 s");
  EXPECT_EQ(format_seconds(0.00035), "350 µs");
  EXPECT_EQ(format_seconds(0.35), "350 ms");
  EXPECT_EQ(format_seconds(12.34), "12.3 s");
  EXPECT_EQ(format_seconds(600), "10 min");
  EXPECT_EQ(format_seconds(9000), "2.5 h");
  EXPECT_EQ(seconds_text(Spread{2.0, 0.081, 3}), "2.00 ± 0.08 s");
  EXPECT_EQ(seconds_text(Spread{2.0, 0.0, 1}), "2 s");
  EXPECT_EQ(seconds_text({}), "–");
  EXPECT_EQ(percent_text(Spread{0.8733, 0.0041, 2}), "87.33 ± 0.41 %");
  EXPECT_EQ(bytes_text(Spread{3.0 * 0x1p20, 0x1p19, 2}), "3.00 ± 0.50 MiB");
  EXPECT_EQ(shortened("conv1", 5), "conv1");
  EXPECT_EQ(shortened("größer als", 5), "größ…");
}

}  // namespace
}  // namespace nf::report
