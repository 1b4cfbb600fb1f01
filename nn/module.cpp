#include "nn/module.h"

#include <utility>

#include "engine/random.h"

namespace nf::nn {
namespace {

const HostTensor& find_value(const StateDict& state, const Parameter& parameter) {
  const auto found = state.find(parameter.name);
  NF_CHECK(found != state.end(), "load: parameter {} {} is missing", parameter.name,
           parameter.shape.str());
  const HostTensor& value = found->second;
  NF_CHECK(value.shape == parameter.shape, "load: parameter {} must be {}, got {}", parameter.name,
           parameter.shape.str(), value.shape.str());
  NF_CHECK(std::cmp_equal(value.values.size(), parameter.numel()),
           "load: parameter {} {} must come with {} values, got {}", parameter.name,
           parameter.shape.str(), parameter.numel(), value.values.size());
  return value;
}

void check_own_value(const char* op, const Parameter& parameter) {
  NF_CHECK(!parameter.folded, "{}: {} has a batch norm folded into it until it is released", op,
           parameter.name);
}

}  // namespace

void Module::read(const std::function<void(const Parameter&)>& reader) const {
  const_cast<Module*>(this)->visit([&](Parameter& parameter) { reader(parameter); });
}

std::vector<Parameter*> Module::parameters() {
  std::vector<Parameter*> result;
  visit([&](Parameter& parameter) {
    if (!parameter.buffer) result.push_back(&parameter);
  });
  return result;
}

std::vector<Parameter*> Module::all() {
  std::vector<Parameter*> result;
  visit([&](Parameter& parameter) { result.push_back(&parameter); });
  return result;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  read([&](const Parameter& parameter) { count += parameter.buffer ? 0 : parameter.numel(); });
  return count;
}

std::int64_t Module::buffer_count() const {
  std::int64_t count = 0;
  read([&](const Parameter& parameter) { count += parameter.buffer ? parameter.numel() : 0; });
  return count;
}

void Module::place(const ContextPtr& context, const std::function<void(Parameter&)>& set_value) {
  read([](const Parameter& parameter) {
    NF_CHECK(!parameter.value, "materialize: {} is on a device already", parameter.name);
  });
  const OpScope op("materialize");
  try {
    visit([&](Parameter& parameter) {
      const Category category = parameter.buffer ? Category::buffer : Category::parameter;
      parameter.value = Tensor::empty(context, parameter.shape, DType::f32, category);
      parameter.value.set_requires_grad(!parameter.buffer);
      if (!context->is_meta()) set_value(parameter);
    });
  } catch (...) {
    release();
    throw;
  }
}

void Module::materialize(const ContextPtr& context, std::uint64_t seed) {
  const std::uint64_t key = random_key(seed, Purpose::init);
  place(context, [&](Parameter& parameter) {
    initialise(parameter.value, parameter.init, {key, hash_name(parameter.name)});
  });
}

void Module::materialize(const ContextPtr& context, const StateDict& state) {
  // Also where no value is set: a meta device takes none.
  read([&](const Parameter& parameter) { find_value(state, parameter); });
  place(context, [&](Parameter& parameter) {
    parameter.value.copy_from_host(find_value(state, parameter).values.data());
  });
}

void Module::release() {
  visit([](Parameter& parameter) {
    parameter.value = Tensor();
    parameter.folded = false;
    parameter.layout = 0;
  });
}

bool Module::materialized() const {
  bool result = true;
  read([&](const Parameter& parameter) { result = result && parameter.value; });
  return result;
}

void Module::save(StateDict& state) const {
  read([&](const Parameter& parameter) {
    NF_CHECK(parameter.value, "save: {} is on no device", parameter.name);
    check_own_value("save", parameter);
    NF_CHECK(!parameter.value.context()->is_meta(),
             "save: {} is on the meta device, which holds no values", parameter.name);
    state[parameter.name] = {parameter.shape, parameter.value.to_host<float>()};
  });
}

void Module::load(const StateDict& state) {
  read([&](const Parameter& parameter) {
    NF_CHECK(parameter.value, "load: {} is on no device", parameter.name);
    check_own_value("load", parameter);
    find_value(state, parameter);
  });
  visit([&](Parameter& parameter) {
    parameter.value.copy_from_host(find_value(state, parameter).values.data());
  });
}

}  // namespace nf::nn
