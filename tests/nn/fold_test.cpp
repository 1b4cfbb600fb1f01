// Batch norms folded into the convolutions before them: the same function, in less memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/random.h"
#include "nn/models/registry.h"
#include "nn/train_step.h"
#include "tests/support/expect.h"

namespace nf::nn {
namespace {

using test::expect_close;
using test::to_values;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t kBudget = std::int64_t{256} << 20;

ContextPtr make_context(bool onednn = true) {
  return Context::create({.budget = kBudget, .threads = 1, .onednn = onednn});
}

std::unique_ptr<Model> narrow_model(const std::string& name, const Shape& input) {
  return make_model(name, {.input = input, .classes = 10, .width = 0.125});
}

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// A net's first values with statistics as training leaves them: no two channels alike.
StateDict trained_state(Module& model) {
  const ContextPtr context = make_context();
  model.materialize(context, 3);
  StateDict state;
  model.save(state);
  model.release();
  for (auto& [name, tensor] : state) {
    if (tensor.shape.rank() != 1) continue;
    RandomStream random(random_key(7, Purpose::test), hash_name(name));
    const bool variance = ends_with(name, "running_var");
    for (float& value : tensor.values)
      value += variance ? 2.0F * random.uniform() - 0.5F : 0.4F * random.uniform() - 0.2F;
  }
  return state;
}

Tensor images(const ContextPtr& context, const Shape& sample, std::int64_t count) {
  const Shape shape{count, sample[0], sample[1], sample[2]};
  return test::to_tensor(context, shape, test::random_values(shape.numel(), "images"), DType::f32);
}

// Terms in the sums of all convolutions and linear layers of the net.
std::int64_t summed_terms(Module& model) {
  std::int64_t terms = 0;
  for (const Parameter* parameter : model.all())
    if (parameter->shape.rank() >= 2) terms += parameter->shape.sample().numel();
  return terms;
}

class Folding : public ::testing::TestWithParam<std::string> {};

TEST_P(Folding, GivesTheSameLogits) {
  // Odd maps, and with the stem's stride and pooling.
  for (const Shape& input : {Shape{33, 19, 3}, Shape{67, 65, 1}})
    for (const bool onednn : {true, false}) {
      SCOPED_TRACE(input.str() + (onednn ? ", onednn" : ", eigen"));
      const auto model = narrow_model(GetParam(), input);
      const StateDict state = trained_state(*model);
      const ContextPtr context = make_context(onednn);
      model->materialize(context, state);
      const Tensor x = images(context, input, 3);
      const test::Values expected = to_values(model->forward({}, x));
      model->fold_batch_norms();
      double size = 0;
      for (const double value : expected) size = std::max(size, std::abs(value));
      ASSERT_GT(size, 0.01);
      // Each sum is off by eps / 2 sqrt(terms) of its size, in both forms, one layer apart from the
      // next: batch norms keep the size of what goes through.
      const double relative = 0x1p-23 * std::sqrt(2.0 * static_cast<double>(summed_terms(*model)));
      expect_close(to_values(model->forward({}, x)), expected, 4 * relative * size, GetParam());
    }
}

// Channels enough that weights move into the device's layouts, another one for another batch.
TEST(Fold, GivesTheSameLogitsInAnyLayout) {
  const Shape input{16, 16, 3};
  const auto model = make_model("resnet18", {.input = input, .classes = 10, .width = 0.5});
  const StateDict state = trained_state(*model);
  const ContextPtr context = make_context();
  std::vector<test::Values> expected;
  const std::vector<std::int64_t> batches{1, 24, 1};
  model->materialize(context, state);
  for (const std::int64_t n : batches)
    expected.push_back(to_values(model->forward({}, images(context, input, n))));
  model->fold_batch_norms();
  const double relative = 0x1p-23 * std::sqrt(2.0 * static_cast<double>(summed_terms(*model)));
  for (std::size_t i = 0; i < batches.size(); ++i) {
    double size = 0;
    for (const double value : expected[i]) size = std::max(size, std::abs(value));
    ASSERT_GT(size, 0.01);
    expect_close(to_values(model->forward({}, images(context, input, batches[i]))), expected[i],
                 4 * relative * size, "resnet18");
  }
}

TEST_P(Folding, KeepsOneVectorOfFour) {
  const Shape input{33, 19, 3};
  const auto model = narrow_model(GetParam(), input);
  const StateDict state = trained_state(*model);
  const std::int64_t parameters = model->parameter_count(), buffers = model->buffer_count();
  ASSERT_GT(buffers, 0);
  const ContextPtr context = make_context();
  const ContextPtr meta = make_meta_context(context->options());
  for (const ContextPtr& on : {meta, context}) {
    on->pool().reset_peak();
    model->materialize(on, state);
    const std::int64_t before = on->pool().stats().live;
    model->fold_batch_norms();
    EXPECT_TRUE(model->materialized());
    EXPECT_EQ(model->buffer_count(), 0);
    // Two buffers and a factor for each channel go.
    EXPECT_EQ(model->parameter_count(), parameters - buffers / 2);
    EXPECT_LE(on->pool().stats().live, before - 3 * buffers / 2 * size_of(DType::f32));
    model->fold_batch_norms();  // nothing is left to fold
    model->forward({}, images(on, input, 2));
    model->release();
    EXPECT_EQ(on->pool().stats().live, 0);
  }
  EXPECT_EQ(meta->pool().stats().peak_reserved, context->pool().stats().peak_reserved);
  EXPECT_EQ(meta->pool().stats().peak_live, context->pool().stats().peak_live);
}

TEST_P(Folding, EndsWithRelease) {
  const Shape input{17, 17, 1};
  const auto model = narrow_model(GetParam(), input);
  const StateDict state = trained_state(*model);
  const ContextPtr context = make_context();
  const Tensor x = images(context, input, 2);
  model->materialize(context, state);
  const test::Values before = to_values(model->forward({}, x));
  model->fold_batch_norms();
  model->release();
  model->materialize(context, state);
  EXPECT_EQ(to_values(model->forward({}, x)), before);
  StateDict saved;
  model->save(saved);
  EXPECT_EQ(saved.size(), state.size());
}

INSTANTIATE_TEST_SUITE_P(AllModels, Folding, ::testing::ValuesIn(model_names()),
                         [](const auto& info) { return info.param; });

TEST(Fold, IsForInferenceAlone) {
  const auto model = narrow_model("resnet18", {16, 16, 3});
  EXPECT_THAT([&] { model->fold_batch_norms(); },
              ThrowsMessage<Error>(HasSubstr("is on no device; materialize comes before")));
  const StateDict state = trained_state(*model);
  const ContextPtr context = make_context();
  model->materialize(context, state);
  model->fold_batch_norms();
  const Tensor x = images(context, {16, 16, 3}, 2);
  Tape tape;
  const auto refusal = ThrowsMessage<Error>(
      HasSubstr("conv1.weight: has a batch norm folded into it, which is for inference"));
  EXPECT_THAT([&] { model->forward({.training = true}, x); }, refusal);
  EXPECT_THAT([&] { model->forward({.tape = &tape}, x); }, refusal);
  StateDict saved;
  EXPECT_THAT([&] { model->save(saved); },
              ThrowsMessage<Error>("save: conv1.weight has a batch norm folded into it until it is "
                                   "released"));
  EXPECT_TRUE(saved.empty());
  EXPECT_THAT([&] { model->load(state); },
              ThrowsMessage<Error>(HasSubstr("load: conv1.weight has a batch norm folded")));
}

}  // namespace
}  // namespace nf::nn
