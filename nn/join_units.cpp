#include "nn/join_units.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <utility>

namespace nf::nn {
namespace {

std::vector<std::int64_t> stages(const Model& model) {
  std::vector<std::int64_t> sizes;
  std::pair<std::int64_t, std::int64_t> before;
  for (std::int64_t i = 0; i < model.unit_count(); ++i) {
    const Shape output = model.unit_input_shape(i + 1, 1);
    const std::pair map{output.rank() == 4 ? output[1] : 1, output.rank() == 4 ? output[2] : 1};
    if (i == 0 || map != before) sizes.push_back(0);
    ++sizes.back();
    before = map;
  }
  return sizes;
}

// Into `count` runs, the dearest of which costs least. limit[k][i]: the dearest of k + 1 runs of
// the first i + 1 units; from[k][i]: where the last of them begins.
std::vector<std::int64_t> alike_runs(const std::vector<std::int64_t>& costs, std::size_t count) {
  const std::size_t units = costs.size();
  std::vector<std::int64_t> before{0};
  for (const std::int64_t cost : costs) before.push_back(before.back() + cost);
  std::vector<std::vector<std::int64_t>> limit(count, std::vector<std::int64_t>(units));
  std::vector<std::vector<std::size_t>> from(count, std::vector<std::size_t>(units));
  for (std::size_t i = 0; i < units; ++i) limit[0][i] = before[i + 1];
  for (std::size_t k = 1; k < count; ++k)
    for (std::size_t i = k; i < units; ++i)
      for (std::size_t first = k; first <= i; ++first) {
        const std::int64_t dearest =
            std::max(limit[k - 1][first - 1], before[i + 1] - before[first]);
        if (first > k && dearest >= limit[k][i]) continue;
        limit[k][i] = dearest;
        from[k][i] = first;
      }
  std::vector<std::int64_t> sizes(count);
  std::size_t end = units;
  for (std::size_t k = count; k-- > 0; end = from[k][end - 1])
    sizes[k] = static_cast<std::int64_t>(end - from[k][end - 1]);
  return sizes;
}

std::vector<std::int64_t> flops_of_units(const Model& model, std::int64_t first,
                                         std::int64_t count) {
  std::vector<std::int64_t> flops;
  for (std::int64_t i = first; i < first + count; ++i)
    flops.push_back(model.unit(i).flops(model.unit_input_shape(i, 1)));
  return flops;
}

[[noreturn]] void fail_rule(std::string_view rule) {
  fail("units: must be each, stage, a whole number from 1 on or several with commas, got \"{}\"",
       rule);
}

std::int64_t whole_number(std::string_view text, std::string_view rule) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, status] = std::from_chars(text.data(), end, number);
  if (status != std::errc() || parsed != end || number < 1) fail_rule(rule);
  return number;
}

void check_sizes(const Model& model, const std::vector<std::int64_t>& sizes) {
  std::int64_t sum = 0;
  for (const std::int64_t size : sizes) {
    NF_CHECK(size >= 1 && size <= model.unit_count() - sum,
             "units: {} of {}'s {} units are left, {} cannot be joined", model.unit_count() - sum,
             model.name(), model.unit_count(), size);
    sum += size;
  }
  NF_CHECK(sum == model.unit_count(), "units: {} of {}'s {} units are in no larger one",
           model.unit_count() - sum, model.name(), model.unit_count());
}

std::vector<std::int64_t> listed_sizes(const Model& model, std::string_view rule) {
  std::vector<std::int64_t> sizes;
  std::size_t begin = 0;
  while (begin <= rule.size()) {
    const std::size_t end = std::min(rule.find(',', begin), rule.size());
    sizes.push_back(whole_number(rule.substr(begin, end - begin), rule));
    begin = end + 1;
  }
  check_sizes(model, sizes);
  return sizes;
}

}  // namespace

std::vector<std::int64_t> joined_unit_sizes(const Model& model, std::string_view rule) {
  if (rule == "stage") return stages(model);
  if (rule == "each")
    return std::vector<std::int64_t>(static_cast<std::size_t>(model.unit_count()), 1);
  if (rule.find(',') != std::string_view::npos) return listed_sizes(model, rule);
  const std::int64_t count = std::min(whole_number(rule, rule), model.unit_count());
  return alike_runs(flops_of_units(model, 0, model.unit_count()), static_cast<std::size_t>(count));
}

std::int64_t first_half(const Model& model, std::int64_t first, std::int64_t count) {
  NF_CHECK(count >= 2, "units: {} cannot be cut in two", count);
  return alike_runs(flops_of_units(model, first, count), 2).front();
}

std::unique_ptr<Model> join_units(std::unique_ptr<Model> model,
                                  const std::vector<std::int64_t>& sizes) {
  check_sizes(*model, sizes);
  auto [units, head] = std::move(*model).take_apart();
  std::vector<std::unique_ptr<Unit>> joined;
  auto next = units.begin();
  for (const std::int64_t size : sizes) {
    if (size == 1) {
      joined.push_back(std::move(*next++));
      continue;
    }
    const auto members = std::span(next, next + size);
    const std::string name = members.front()->name() + ".." + members.back()->name();
    const std::int64_t channels = members.back()->out_channels();
    auto chain = std::make_unique<Sequential>();
    std::int64_t parts = 0;
    for (std::unique_ptr<Unit>& unit : members) {
      parts += unit->joined();
      chain->add(std::move(unit));
    }
    next += size;
    joined.push_back(std::make_unique<Unit>(name, channels, std::move(chain), parts));
  }
  return std::make_unique<Model>(model->name(), model->options(), std::move(joined),
                                 std::move(head));
}

}  // namespace nf::nn
