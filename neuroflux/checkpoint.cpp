#include "neuroflux/checkpoint.h"

#include <fmt/format.h>

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "neuroflux/checksum.h"
#include "neuroflux/json_value.h"
#include "neuroflux/metrics_log.h"
#include "neuroflux/run_record.h"
#include "nn/safetensors.h"

namespace nf {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr const char* kCheckpointFormat = "neuroflux-checkpoint-2";

// Tensors of one state dict in the file are named SET/NAME.
constexpr std::string_view kTrained = "trained/", kWeights = "weights/", kOptimizer = "optimizer/";

json block_json(const BlockResult& block) {
  return {{"measured_peak_bytes", block.measured_peak_bytes},
          {"train_seconds", block.train_seconds},
          {"cache_seconds", block.cache_seconds},
          {"cache_wait_seconds", block.cache_wait_seconds},
          {"fill_wait_seconds", block.fill_wait_seconds},
          {"cache_host_bytes", block.cache_host_bytes},
          {"evaluation_seconds", block.evaluation_seconds},
          {"evaluation_wait_seconds", block.evaluation_wait_seconds}};
}

json state_json(const TrainingState& state) {
  json blocks = json::array(), exits = json::array(), epochs = json::array();
  for (const BlockResult& block : state.blocks) blocks.push_back(block_json(block));
  for (const ExitResult& exit : state.exits)
    exits.push_back({{"unit", exit.unit},
                     {"parameters", exit.parameters},
                     {"flops", exit.flops},
                     {"validation_accuracy", exit.validation_accuracy}});
  for (const nn::EpochMetrics& epoch : state.epochs) epochs.push_back(to_json(epoch));
  return {{"blocks", std::move(blocks)},
          {"exits", std::move(exits)},
          {"epochs", std::move(epochs)},
          {"partial", block_json(state.partial)}};
}

json progress_json(const Progress& checkpoint, const TrainingState* state) {
  json methods = json::array();
  for (const MethodSummary& method : checkpoint.methods) methods.push_back(to_json(method));
  return {{"plan", checkpoint.plan},
          {"training", checkpoint.training},
          {"data", checkpoint.data},
          {"methods", std::move(methods)},
          {"cache_folder", checkpoint.cache_folder.string()},
          {"metrics_bytes", checkpoint.metrics_bytes},
          {"elapsed_seconds", checkpoint.elapsed_seconds},
          {"energy_joules", checkpoint.energy_joules ? json(*checkpoint.energy_joules) : json()},
          {"state", state != nullptr ? state_json(*state) : json()}};
}

// In the order of their names, so that it does not hang on where they lie in a file.
std::uint64_t checksum(const std::string& progress, std::map<std::string, std::uint64_t> tensors) {
  std::uint64_t hash = hash_text(progress);
  for (const auto& [name, values] : tensors) hash = hash_text(name, hash ^ values);
  return hash;
}

std::uint64_t hash_tensor(const nn::HostTensor& tensor) {
  return hash_text(tensor.shape.str(), hash_bytes(std::as_bytes(std::span(tensor.values))));
}

BlockResult read_block(const JsonValue& value) {
  const auto seconds = [&](const char* key) { return value.at(key).real(0.0, kMostSeconds); };
  return {.plan = {},
          .measured_peak_bytes = value.at("measured_peak_bytes").whole(),
          .train_seconds = seconds("train_seconds"),
          .cache_seconds = seconds("cache_seconds"),
          .cache_wait_seconds = seconds("cache_wait_seconds"),
          .fill_wait_seconds = seconds("fill_wait_seconds"),
          .cache_host_bytes = value.at("cache_host_bytes").whole(),
          .evaluation_seconds = seconds("evaluation_seconds"),
          .evaluation_wait_seconds = seconds("evaluation_wait_seconds")};
}

TrainingState read_state(const JsonValue& value, const Plan* plan, nn::StateDict tensors) {
  TrainingState state;
  const std::vector<JsonValue> blocks = value.at("blocks").list();
  const std::size_t most = plan == nullptr ? 0 : plan->blocks.size();
  if (blocks.size() > most)
    value.at("blocks").fail(fmt::format("has {} entries; the plan has {}", blocks.size(), most));
  for (const JsonValue& block : blocks) {
    state.blocks.push_back(read_block(block));
    state.blocks.back().plan = plan->blocks[state.blocks.size() - 1];
  }
  for (const JsonValue& exit : value.at("exits").list())
    state.exits.push_back({exit.at("unit").whole(), exit.at("parameters").whole(),
                           exit.at("flops").whole(),
                           exit.at("validation_accuracy").real(0.0, 1.0)});
  const std::int64_t units = state.blocks.empty() ? 0 : state.blocks.back().plan.last_unit + 1;
  if (static_cast<std::int64_t>(state.exits.size()) != units)
    value.at("exits").fail(fmt::format("has {} entries; the blocks that are done have {} units",
                                       state.exits.size(), units));
  for (const JsonValue& epoch : value.at("epochs").list())
    state.epochs.push_back(read_epoch(epoch));
  state.partial = read_block(value.at("partial"));
  while (!tensors.empty()) {
    auto node = tensors.extract(tensors.begin());
    const std::string name = node.key();
    for (const auto& [set, dict] :
         {std::pair(kTrained, &state.trained), std::pair(kWeights, &state.weights),
          std::pair(kOptimizer, &state.optimizer)})
      if (name.starts_with(set)) {
        node.key() = name.substr(set.size());
        dict->insert(std::move(node));
        break;
      }
  }
  return state;
}

}  // namespace

fs::path checkpoint_file(const fs::path& folder) { return folder / "checkpoint.safetensors"; }

void write_checkpoint(const fs::path& folder, const Progress& checkpoint,
                      const TrainingState* state) {
  std::vector<nn::NamedTensor> tensors;
  std::map<std::string, std::uint64_t> hashes;
  const auto add = [&](std::string_view set, const nn::StateDict& dict) {
    for (const auto& [name, tensor] : dict) {
      tensors.push_back({std::string(set) + name, &tensor});
      hashes[tensors.back().name] = hash_tensor(tensor);
    }
  };
  if (state != nullptr) {
    add(kTrained, state->trained);
    add(kWeights, state->weights);
    add(kOptimizer, state->optimizer);
  }
  const std::string progress = progress_json(checkpoint, state).dump();
  nn::write_safetensors(checkpoint_file(folder), tensors,
                        {{"format", kCheckpointFormat},
                         {"progress", progress},
                         {"checksum", fmt::format("{:016x}", checksum(progress, hashes))}});
}

std::optional<Checkpoint> read_checkpoint(const fs::path& folder,
                                          const std::vector<const Plan*>& plans) {
  const fs::path path = checkpoint_file(folder);
  if (!fs::exists(path)) return std::nullopt;
  nn::Weights file = nn::read_safetensors(path);
  const std::string& progress = file.metadata["progress"];
  std::map<std::string, std::uint64_t> hashes;
  for (const auto& [name, tensor] : file.tensors) hashes[name] = hash_tensor(tensor);
  if (file.metadata["format"] != kCheckpointFormat)
    throw DataError(fmt::format("{}: is no checkpoint of this version", path.string()));
  if (file.metadata["checksum"] != fmt::format("{:016x}", checksum(progress, hashes)))
    throw DataError(fmt::format("{}: is damaged, its checksum is another", path.string()));

  const JsonValue value = JsonValue::parse(progress, path.string());
  Checkpoint checkpoint;
  checkpoint.plan = value.at("plan").text();
  checkpoint.training = value.at("training").text();
  checkpoint.data = value.at("data").text();
  checkpoint.cache_folder = value.at("cache_folder").text();
  checkpoint.metrics_bytes = value.at("metrics_bytes").whole();
  checkpoint.elapsed_seconds = value.at("elapsed_seconds").real(0.0, kMostSeconds);
  if (const auto joules = value.find("energy_joules"))
    checkpoint.energy_joules = joules->real(0.0, kMostSpeed);
  const JsonValue methods = value.at("methods");
  for (const JsonValue& method : methods.list()) {
    if (checkpoint.methods.size() == plans.size())
      methods.fail(fmt::format("has more than the {} of the plan", plans.size()));
    const Plan* plan = plans[checkpoint.methods.size()];
    checkpoint.methods.push_back(
        read_method(method, plan == nullptr ? 0 : static_cast<std::int64_t>(plan->units.size())));
  }
  if (checkpoint.methods.empty()) methods.fail("is empty");
  if (const auto state = value.find("state"))
    checkpoint.state =
        read_state(*state, plans[checkpoint.methods.size() - 1], std::move(file.tensors));
  return checkpoint;
}

void remove_checkpoint(const fs::path& folder) {
  std::error_code status;
  fs::remove(checkpoint_file(folder), status);
  NF_CHECK(!status, "{}: can't be removed: {}", checkpoint_file(folder).string(), status.message());
}

}  // namespace nf
