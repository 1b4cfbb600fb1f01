// The meta device must ask for exactly the memory that the device it stands for asks for.
#include "engine/memory/trace.h"
#include "tests/support/expect.h"

namespace nf::test {
namespace {

struct Footprint {
  PoolStats stats;
  std::vector<std::string> requests;  // what was granted or freed where, in order
};

/// One forward and, where there is one, backward pass from an empty pool.
Footprint footprint(const Instance& t, const ContextPtr& context, DType dtype, bool train) {
  MemoryTrace trace;
  context->pool().set_trace(&trace);
  context->pool().reset_peak();
  {
    std::vector<Tensor> inputs = input_tensors(t, context, dtype);
    Tape tape;
    if (train)
      for (Tensor& input : inputs) input.set_requires_grad(true);
    const Tensor y = t.run(train ? &tape : nullptr, inputs);
    if (train)
      tape.backward(y,
                    to_tensor(context, t.output, t.dy, y.dtype(), Category::activation_gradient));
  }
  context->pool().set_trace(nullptr);
  Footprint result{context->pool().stats(), {}};
  const std::uint64_t base = trace.events().empty() ? 0 : trace.events().front().address;
  for (const MemoryEvent& e : trace.events())
    result.requests.push_back(fmt::format("{} {}: {} bytes of {} at {}", static_cast<int>(e.action),
                                          e.op, e.asked, to_string(e.category), e.address - base));
  return result;
}

class OpMeta : public ::testing::TestWithParam<std::tuple<DevicePath, std::string>> {
 protected:
  void SetUp() override { NF_SKIP_WITHOUT_DEVICE(std::get<0>(GetParam())); }
};

TEST_P(OpMeta, AsksForTheSameMemoryAsTheDevice) {
  const auto& [path, op] = GetParam();
  const ContextPtr device = path.context();
  const ContextPtr meta = make_meta_context(device->options());
  ASSERT_TRUE(meta->is_meta());
  for (const Instance& t : instances(op, path.dtype))
    for (const bool train : {false, true}) {
      if (train && !t.recorded) continue;
      const Footprint measured = footprint(t, device, path.dtype, train);
      const Footprint predicted = footprint(t, meta, path.dtype, train);
      EXPECT_EQ(predicted.stats.peak_reserved, measured.stats.peak_reserved) << t.name;
      EXPECT_EQ(predicted.stats.peak_live, measured.stats.peak_live) << t.name;
      EXPECT_EQ(predicted.requests, measured.requests) << t.name;
      EXPECT_GT(measured.stats.peak_reserved, 0) << t.name;
      EXPECT_EQ(measured.stats.live, 0) << t.name;
    }
}

// The peak is enough, and nothing less is.
TEST_P(OpMeta, PeakIsTheLeastBudget) {
  const auto& [path, op] = GetParam();
  const std::vector<Instance> all = instances(op, path.dtype);
  for (std::size_t i = 0; i < all.size(); i += 5) {
    const Instance& t = all[i];
    ContextOptions options = path.options();
    options.workspace_cap = workspace_cap(options);  // not to follow the budget below
    const ContextPtr meta = make_meta_context(options);
    options.budget = footprint(t, meta, path.dtype, t.recorded).stats.peak_reserved;
    EXPECT_NO_THROW(footprint(t, Context::create(options), path.dtype, t.recorded)) << t.name;
    options.budget -= 1;
    EXPECT_THROW(footprint(t, Context::create(options), path.dtype, t.recorded), OutOfBudget)
        << t.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpMeta,
                         ::testing::Combine(::testing::ValuesIn(all_paths()),
                                            ::testing::ValuesIn(operator_names())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + std::string("_") +
                                  std::get<1>(info.param);
                         });

// Libraries choose algorithms under the cap, so a plan must choose under that of the run.
TEST(MetaContext, CapsWorkspacesAsTheBudgetOfTheDeviceDoes) {
  constexpr std::int64_t kMiB = 1 << 20;
  EXPECT_EQ(workspace_cap({}), 64 * kMiB);
  EXPECT_EQ(workspace_cap({.budget = 4096 * kMiB}), 64 * kMiB);
  EXPECT_EQ(workspace_cap({.budget = 64 * kMiB}), 8 * kMiB);
  EXPECT_EQ(workspace_cap({.budget = 64 * kMiB, .workspace_cap = 3}), 3);
  for (const ContextOptions& options :
       {ContextOptions{}, ContextOptions{.budget = 64 * kMiB}, ContextOptions{.budget = 1},
        ContextOptions{.budget = 64 * kMiB, .workspace_cap = 3}})
    EXPECT_EQ(workspace_cap(make_meta_context(options)->options()), workspace_cap(options));
  EXPECT_THROW(Context::create({.workspace_cap = -1}), Error);
}

}  // namespace
}  // namespace nf::test
