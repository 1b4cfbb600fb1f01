// Reductions.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/ops/ops.h"
#include "tests/support/op_builders.h"

namespace nf::test {
namespace {

// What an element goes through at most in the trees of these sizes: a thread's vectors and runs, a
// warp, a block, the blocks.
constexpr std::int64_t kDepth = 48;

std::int64_t rows_of(const ReduceCase& p, Per per) { return per == Per::row ? p.x[0] : 1; }

Instance reduction_instance(const std::string& op, const ReduceCase& p, Per per) {
  Instance t = start(op, p.name + (per == Per::row ? ", by row" : ", all"), {rows_of(p, per)});
  t.statistics = true;
  t.gradcheck = p.gradcheck;
  add_input(t, "x", p.x, p.offset - 1, p.offset + 1);
  return t;
}

/// fold(first, last) of each row.
template <typename Fold>
Values by_row(const Values& x, std::int64_t rows, Fold fold) {
  Values y;
  const auto columns = static_cast<std::ptrdiff_t>(x.size()) / rows;
  for (auto row = x.begin(); row != x.end(); row += columns) y.push_back(fold(row, row + columns));
  return y;
}

// Of terms that double holds with digits to spare.
constexpr auto kTotal = [](auto first, auto last) {
  long double sum = 0;
  for (; first != last; ++first) sum += static_cast<long double>(*first);
  return static_cast<double>(sum);
};

std::vector<Instance> sum_or_mean_instances(bool mean) {
  std::vector<Instance> result;
  for (const Per per : {Per::tensor, Per::row})
    for (const ReduceCase& p : reduce_cases()) {
      Instance t = reduction_instance(mean ? "mean" : "sum", p, per);
      const std::int64_t rows = rows_of(p, per), columns = p.x.numel() / rows;
      const double weight = mean ? 1 / static_cast<double>(columns) : 1;
      const Values x = t.inputs[0].values, dy = t.dy;
      t.run = [mean, per](Tape* tape, const std::vector<Tensor>& in) {
        return mean ? nf::mean(tape, in[0], per) : sum(tape, in[0], per);
      };
      t.forward = [=] {
        Values y = by_row(x, rows, kTotal);
        for (double& value : y) value *= weight;
        return y;
      };
      t.backward = [=] {
        Values dx;
        for (const double value : dy)
          dx.insert(dx.end(), static_cast<std::size_t>(columns), weight * value);
        return std::vector<Values>{dx};
      };
      // Partial sums reach the sum's own size and that of a sum of random signs.
      const double size =
          largest(by_row(x, rows, kTotal)) + std::sqrt(static_cast<double>(columns)) * rms(x);
      t.output_bound = {kDepth, weight * size};
      t.gradient_bounds = {mean ? Bound{2, weight * largest(dy)} : Bound{}};
      result.push_back(std::move(t));
    }
  return result;
}

}  // namespace

std::vector<Instance> sum_instances() { return sum_or_mean_instances(false); }
std::vector<Instance> mean_instances() { return sum_or_mean_instances(true); }

std::vector<Instance> unrecorded_reduction_instances() {
  std::vector<Instance> result;
  for (const Per per : {Per::tensor, Per::row})
    for (const ReduceCase& p : reduce_cases()) {
      const auto add = [&](const char* op, Tensor (*run)(const Tensor&, Per), auto fold) {
        Instance t = reduction_instance(op, p, per);
        t.recorded = false;
        const Values x = t.inputs[0].values;
        const std::int64_t rows = rows_of(p, per);
        t.run = [=](Tape*, const std::vector<Tensor>& in) { return run(in[0], per); };
        t.forward = [=] { return by_row(x, rows, fold); };
        result.push_back(std::move(t));
      };
      add("min", min, [](auto first, auto last) { return *std::min_element(first, last); });
      add("max", max, [](auto first, auto last) { return *std::max_element(first, last); });
      add("sum_of_squares", sum_of_squares, [](auto first, auto last) {
        Values squares(first, last);
        for (double& value : squares) value *= value;
        return kTotal(squares.begin(), squares.end());
      });
      result.back().output_bound = {kDepth, largest(result.back().forward())};
    }
  return result;
}

}  // namespace nf::test
