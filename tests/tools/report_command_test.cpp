// neuroflux report, from the outside, and what a browser makes of its page.
#include <cstdlib>
#include <fstream>

#include "tests/tools/training.h"

namespace nf::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class Report : public Training {
 protected:
  // Two budgets, of which the smaller one fits nothing but neuroflux, and two seeds.
  void compare(const std::string& folder) const {
    const ProgramResult refused =
        run(Arguments{"compare", "--budget", "4096", "--run-dir", "probe", "--json"} + kTiny);
    std::int64_t bp = 0, local = 0;
    const json plans = json::parse(refused.out);
    for (const json& method : plans.at("methods"))
      (method.at("name") == "bp" ? bp : local) = method.at("minimum_budget_bytes");
    ASSERT_GT(bp, local * 5 / 4);
    const ProgramResult result =
        run(Arguments{"compare", "--methods", "bp,bp-accumulate,bp-checkpoint,local,neuroflux",
                      "--budgets", std::to_string(local * 9 / 8) + ",16MiB", "--seeds", "0,1",
                      "--run-dir", folder} +
            kTiny);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
};

TEST_F(Report, NeedsNothingButItself) {
  compare("runs <b>&\"");
  const ProgramResult result = run({"report", "runs <b>&\"", "--out", "page.html"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "report: page.html\n");
  const std::string page = read_text(file("page.html"));
  for (const char* outside : {"http:", "https:", "//", "src=", "url(", "@import", "<script"})
    EXPECT_THAT(page, Not(HasSubstr(outside))) << outside;
  EXPECT_THAT(page, HasSubstr("runs &lt;b&gt;&amp;&quot;"));
  EXPECT_THAT(page, Not(HasSubstr("runs <b>")));
  for (const char* part : {"Accuracy over time", "Exits", "Memory of one training step", "Plans",
                           "Where the time of each block went", "bp does not fit",
                           "since it does not fit: bp, bp-accumulate", "2 of 2"})
    EXPECT_THAT(page, HasSubstr(part));
  // The step that was run again is the one of the run, to the byte.
  EXPECT_THAT(page, HasSubstr("the run measured"));
  EXPECT_THAT(page, Not(HasSubstr("bytes more than the one that planned")));
  EXPECT_THAT(page, Not(HasSubstr("The step could not be run again")));
}

TEST_F(Report, TakesRunsOfOneMethodTogetherAndKeepsOtherConditionsApart) {
  const Arguments command = Arguments{"train", "--budget", "16MiB"} + kTiny;
  for (const char* method : {"bp", "neuroflux"})
    ASSERT_EQ(run(command + Arguments{"--method", method, "--run-dir", method}).exit_code, 0);
  ASSERT_EQ(run({"report", "bp", "neuroflux"}).exit_code, 0);
  const std::string page = read_text(file("report.html"));
  EXPECT_THAT(page, HasSubstr("2 runs."));
  for (const char* picture : {"<h4>bp, batch ", "<h4>neuroflux, block ", "<h3>Plans</h3>",
                              "aria-label=\"plan of neuroflux under 16.0 MiB\""})
    EXPECT_THAT(page, HasSubstr(picture));
  ASSERT_EQ(run(command + Arguments{"--run-dir", "wide", "--dropout", "0.2"}).exit_code, 0);
  ASSERT_EQ(run({"report", "bp", "neuroflux", "wide"}).exit_code, 0);
  EXPECT_THAT(read_text(file("report.html")), HasSubstr("3 runs under 2 conditions."));
}

TEST_F(Report, RefusesWhatIsNoRunAndLeavesNoPage) {
  expect_refusal(run({"report", "nowhere"}), 1, "nowhere: is no run folder");
  expect_refusal(run({"report", "images"}), 1, "images/summary.json: can't be read");
  expect_refusal(run({"report"}), 2, "RUN is required");
  expect_refusal(run({"report", "images", "--ou", "x"}), 2, "did you mean --out?");
  EXPECT_FALSE(fs::exists(file("report.html")));
}

TEST_F(Report, SaysWhyAStepIsNotShown) {
  ASSERT_EQ(run(Arguments{"train", "--run-dir", "run"} + kTiny).exit_code, 0);
  workspace_.write("run/config.toml", "model = \"vgg99\"\n");
  ASSERT_EQ(run({"report", "run"}).exit_code, 0);
  EXPECT_THAT(
      read_text(file("report.html")),
      HasSubstr("The step could not be run again: model: there is none named &quot;vgg99&quot;"));
}

// Measures every picture where it is laid out, and says what is wrong with it.
constexpr const char* kInspection = R"js(<pre id="inspection"></pre><script>
const wrong = [];
const pictures = [...document.querySelectorAll('svg')];
const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 &&
                         a.bottom <= b.bottom + 1;
const meet = (a, b) => a.left + 1 < b.right && b.left + 1 < a.right && a.top + 3 < b.bottom &&
                       b.top + 3 < a.bottom;
for (const picture of pictures) {
  const name = picture.getAttribute('aria-label'), area = picture.getBoundingClientRect();
  if (area.width < 100 || area.height < 40) wrong.push(`${name}: ${area.width}x${area.height}`);
  const texts = [...picture.querySelectorAll('text')].map(t => [t.textContent,
                                                               t.getBoundingClientRect()]);
  texts.forEach(([text, box], i) => {
    if (!inside(box, area)) wrong.push(`${name}: "${text}" is cut off`);
    for (const [other, place] of texts.slice(0, i))
      if (meet(box, place)) wrong.push(`${name}: "${text}" lies on "${other}"`);
  });
  for (const shape of picture.querySelectorAll('.fill')) {
    const style = getComputedStyle(shape);
    if (style.fill === 'rgb(0, 0, 0)') wrong.push(`${name}: a shape has no colour`);
  }
}
for (const frame of document.querySelectorAll('.picture'))
  if (innerWidth >= 1100 && frame.scrollWidth > frame.clientWidth)
    wrong.push(`${frame.firstChild.getAttribute('aria-label')}: wider than its frame`);
if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page is too wide');
document.getElementById('inspection').textContent =
    `${pictures.length} pictures, ${wrong.length} wrong\n` + wrong.join('\n');
</script></body>)js";

std::string browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
    if (std::system(fmt::format("command -v {} >/dev/null 2>&1", name).c_str()) == 0) return name;
  return "";
}

TEST_F(Report, IsLaidOutInABrowserWithoutErrors) {
  const std::string program = browser();
  if (program.empty()) GTEST_SKIP() << "neither chromium nor google-chrome is installed";
  compare("runs");
  ASSERT_EQ(run({"report", "runs", "--out", "page.html"}).exit_code, 0);
  std::string page = read_text(file("page.html"));
  page.replace(page.rfind("</body>"), 7, kInspection);
  workspace_.write("inspected.html", page);
  for (const int width : {1200, 520}) {
    const std::string command = fmt::format(
        "cd '{}' && timeout 120 {} --headless --no-sandbox --disable-gpu --user-data-dir=profile "
        "--window-size={},900 --enable-logging=stderr --dump-dom \"file://$PWD/inspected.html\" "
        ">dom.html 2>browser.txt",
        workspace_.path().string(), program, width);
    ASSERT_EQ(std::system(command.c_str()), 0) << read_text(file("browser.txt"));
    const std::string dom = read_text(file("dom.html"));
    EXPECT_THAT(read_text(file("browser.txt")), Not(HasSubstr("CONSOLE")));
    const std::string found = dom.substr(dom.rfind("<pre id=\"inspection\">") + 21, 2000);
    EXPECT_THAT(found, testing::MatchesRegex("[12][0-9] pictures, 0 wrong(.|\n)*")) << width;
  }
}

}  // namespace
}  // namespace nf::test
