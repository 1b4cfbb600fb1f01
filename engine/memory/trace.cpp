#include "engine/memory/trace.h"

#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"

namespace nf {
namespace {

const char* to_string(MemoryAction action) {
  switch (action) {
    case MemoryAction::allocate:
      return "allocate";
    case MemoryAction::free:
      return "free";
    case MemoryAction::out_of_budget:
      return "out_of_budget";
  }
  return "?";
}

// A user's model may hold a comma or a quote in a unit's name.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace

void MemoryTrace::record(MemoryAction action, const std::byte* address, std::int64_t asked,
                         std::int64_t granted, const PoolStats& after, Category category) {
  const auto elapsed = std::chrono::steady_clock::now() - start_;
  const MemoryTags& tags = memory_tags();
  events_.push_back({std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count(), action,
                     reinterpret_cast<std::uintptr_t>(address), asked, granted, after.live,
                     after.reserved, after.by_category, category, std::string(tags.op),
                     std::string(tags.unit), std::string(tags.phase), stage_});
}

void check_trace_path(const std::filesystem::path& path) {
  NF_CHECK(path.extension() == ".csv" || path.extension() == ".json",
           "trace: the file must end in .json (Chrome trace) or .csv, got '{}'", path.string());
}

void MemoryTrace::write(const std::filesystem::path& path) const {
  check_trace_path(path);
  AtomicFile out(path);
  if (path.extension() == ".csv")
    write_csv(out);
  else
    write_chrome(out);
  out.commit();
}

void MemoryTrace::write_csv(AtomicFile& out) const {
  out.write("time_ns,action,address,asked,granted,live,reserved,category,op,unit,phase,stage\n");
  for (const MemoryEvent& e : events_)
    out.write(fmt::format("{},{},{:#x},{},{},{},{},{},{},{},{},{}\n", e.time_ns,
                          to_string(e.action), e.address, e.asked, e.granted, e.live, e.reserved,
                          nf::to_string(e.category), csv_field(e.op), csv_field(e.unit),
                          csv_field(e.phase), csv_field(e.stage)));
}

void MemoryTrace::write_chrome(AtomicFile& out) const {
  using nlohmann::json;
  // Times are microseconds with three decimals; events are streamed, as traces can be large.
  const auto stamp = [](const MemoryEvent& e) { return static_cast<double>(e.time_ns) / 1000.0; };
  const auto add = [&](const json& event) {
    // A unit's name is the user's own and need not be UTF-8.
    out.write(",\n" + event.dump(-1, ' ', false, json::error_handler_t::replace));
  };
  out.write(R"({"schemaVersion":1,"displayTimeUnit":"ms","traceEvents":[)"
            "\n");
  out.write(
      R"({"name":"process_name","ph":"M","pid":1,"tid":1,"args":{"name":"neuroflux memory"}})");
  std::string stage;
  for (const MemoryEvent& e : events_) {
    if (e.stage != stage) {
      stage = e.stage;
      add({{"name", stage}, {"ph", "i"}, {"s", "g"}, {"pid", 1}, {"tid", 1}, {"ts", stamp(e)}});
    }
    json live = json::object();
    for (int i = 0; i < kCategories; ++i)
      live[nf::to_string(static_cast<Category>(i))] = e.by_category[static_cast<std::size_t>(i)];
    add({{"name", "live bytes"}, {"ph", "C"}, {"pid", 1}, {"ts", stamp(e)}, {"args", live}});
    add({{"name", "pool"},
         {"ph", "C"},
         {"pid", 1},
         {"ts", stamp(e)},
         {"args", {{"live", e.live}, {"reserved", e.reserved}}}});
    add({{"name", fmt::format("{} {}", to_string(e.action), nf::to_string(e.category))},
         {"ph", "i"},
         {"s", "t"},
         {"pid", 1},
         {"tid", 1},
         {"ts", stamp(e)},
         {"args",
          {{"op", e.op},
           {"unit", e.unit},
           {"phase", e.phase},
           {"stage", e.stage},
           {"asked", e.asked},
           {"granted", e.granted},
           {"address", fmt::format("{:#x}", e.address)}}}});
  }
  out.write("\n]}\n");
}

}  // namespace nf
