#include "train/run_state.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "io/json.h"
#include "io/safetensors_writer.h"

namespace nibble::train {
namespace {

constexpr const char* kState = "state.json";
constexpr const char* kTensors = "state.safetensors";
constexpr std::string_view kPrefix = "step-";

// The tensors of one trained tensor that a step changes, with their suffixes.
template <class F>
void for_each_part(const TrainedTensor& t, F f) {
  const ops::AdamWParameter& p = t.parameter;
  f(t.name + "/w", p.w);
  if (!p.low.empty()) f(t.name + "/low", p.low);
  for (const auto& [name, moment] : {std::pair("/m", &p.m), std::pair("/v", &p.v)}) {
    f(t.name + name, moment->values);
    if (!moment->absmax.empty()) f(t.name + name + "_absmax", moment->absmax);
  }
}

// step-N folders, newest first.
std::vector<std::pair<int64_t, Path>> states_of(const Path& run) {
  std::vector<std::pair<int64_t, Path>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(run / "checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto [at, failed] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (failed == std::errc() && at == end) found.emplace_back(step, entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

Status save_state(const Path& run, const RunState& state, Student& student) {
  std::error_code error;
  std::filesystem::create_directories(run / "checkpoints", error);
  if (error) return io("{}: expected a folder that can be made: {}", (run / "checkpoints").string(), error.message());
  const Path target = run / "checkpoints" / fmt::format("{}{}", kPrefix, state.step);
  if (std::filesystem::exists(target)) return {};
  NIBBLE_TRY(folder, OutputFolder::create(target));
  const Json json = {{"step", state.step},         {"epoch", state.cursor.epoch},  {"index", state.cursor.index},
                     {"settings", state.settings}, {"best_step", state.best_step}, {"best_loss", state.best_loss}};
  NIBBLE_RETURN_IF_ERROR(write_file(folder.path() / kState, json.dump(2) + "\n"));

  std::vector<TensorDeclaration> declarations;
  for (const TrainedTensor& t : student.trained()) {
    for_each_part(
        t, [&](const std::string& name, const Tensor& x) { declarations.emplace_back(name, x.dtype(), x.shape()); });
  }
  NIBBLE_TRY(writer, SafetensorsWriter::create(folder.path() / kTensors, std::move(declarations)));
  Status written;
  for (const TrainedTensor& t : student.trained()) {
    for_each_part(t, [&](const std::string& name, const Tensor& x) {
      if (written.ok()) written = writer.append(name, x);
    });
  }
  NIBBLE_RETURN_IF_ERROR(written);
  NIBBLE_RETURN_IF_ERROR(writer.commit());
  return folder.commit();
}

Result<std::optional<Path>> newest_state(const Path& run) {
  const auto states = states_of(run);
  return states.empty() ? std::optional<Path>() : std::optional<Path>(states.front().second);
}

Result<RunState> load_state(const Path& folder, const std::string& settings, Student& student) {
  NIBBLE_TRY(text, read_file(folder / kState));
  NIBBLE_TRY(json, parse_json(text, kState));
  RunState state;
  const auto integer = [&](const char* key, int64_t& to) {
    const Json* value = find_value(json, key);
    if (value == nullptr || !value->is_number_integer()) return false;
    to = value->get<int64_t>();
    return true;
  };
  const Json* written = find_value(json, "settings");
  const Json* best = find_value(json, "best_loss");
  if (!integer("step", state.step) || !integer("epoch", state.cursor.epoch) || !integer("index", state.cursor.index) ||
      !integer("best_step", state.best_step) || written == nullptr || !written->is_string() || best == nullptr ||
      !best->is_number()) {
    return corrupt("{}: expected the state of a run, got something else", (folder / kState).string());
  }
  state.best_loss = best->get<double>();
  state.settings = written->get<std::string>();
  if (state.settings != settings) {
    return invalid_argument("resume: {}: expected the state of a run with the same settings and data, got another's",
                            folder.string())
        .with_hint("repeat the flags of the first call, or choose a new --output");
  }
  NIBBLE_TRY(file, Safetensors::open(folder / kTensors));
  Status read;
  for (TrainedTensor& t : student.trained()) {
    for_each_part(t, [&](const std::string& name, const Tensor& x) {
      if (!read.ok()) return;
      const TensorInfo* info = file.find(name);
      if (info == nullptr || info->bytes != x.bytes()) {
        read = corrupt("{}: expected {} with {} bytes", (folder / kTensors).string(), name, x.bytes());
        return;
      }
      std::memcpy(x.raw(), file.bytes(*info).data(), x.bytes());
    });
  }
  NIBBLE_RETURN_IF_ERROR(read);
  return state;
}

Status prune_states(const Path& run, int keep) {
  const auto states = states_of(run);
  for (size_t i = static_cast<size_t>(keep); i < states.size(); ++i) {
    std::error_code error;
    std::filesystem::remove_all(states[i].second, error);
    if (error) return io("{}: expected a folder that can be removed: {}", states[i].second.string(), error.message());
  }
  return {};
}

}  // namespace nibble::train
