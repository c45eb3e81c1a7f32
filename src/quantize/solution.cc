#include "quantize/solution.h"

#include <algorithm>

#include "io/json.h"
#include "io/safetensors_writer.h"

namespace nibble::quantize {
namespace {

constexpr const char* kMetadata = "nibble_layer";

struct Part {
  const char* suffix;
  Tensor ops::Linear::*tensor;
};
constexpr Part kParts[] = {{".weight", &ops::Linear::weight},
                           {".weight_scale", &ops::Linear::block_scale},
                           {".channel_scale", &ops::Linear::channel_scale},
                           {".low_rank_a", &ops::Linear::low_rank_a},
                           {".low_rank_b", &ops::Linear::low_rank_b}};

Json to_json(const SolvedModule& of) {
  const ops::Linear& w = of.solved.linear;
  const ops::Nvfp4Stats& s = of.solved.stats;
  return {{"module", of.module},
          {"format", static_cast<int>(w.format)},
          {"inputs", static_cast<int>(w.inputs)},
          {"shape", {w.out, w.in}},
          {"tensor_scale", w.tensor_scale},
          {"input_scale", w.input_scale},
          {"stats", {s.blocks, s.floor_blocks, s.low_blocks, s.top_blocks, s.lost_rows, s.first_lost_row}},
          {"energy", s.energy},
          {"error", s.error},
          {"max_error", s.max_error},
          {"loss", of.loss},
          {"note", of.note}};
}

void from_json(const Json& json, SolvedModule& of) {
  ops::Linear& w = of.solved.linear;
  ops::Nvfp4Stats& s = of.solved.stats;
  of.module = json.at("module");
  w.format = static_cast<ops::WeightFormat>(json.at("format").get<int>());
  w.inputs = static_cast<ops::InputRounding>(json.at("inputs").get<int>());
  w.out = json.at("shape").at(0);
  w.in = json.at("shape").at(1);
  w.tensor_scale = json.at("tensor_scale");
  w.input_scale = json.at("input_scale");
  const Json& counts = json.at("stats");
  int64_t* const fields[] = {&s.blocks, &s.floor_blocks, &s.low_blocks, &s.top_blocks, &s.lost_rows, &s.first_lost_row};
  for (size_t i = 0; i < std::size(fields); ++i) *fields[i] = counts.at(i);
  s.energy = json.at("energy");
  s.error = json.at("error");
  s.max_error = json.at("max_error");
  of.loss = json.at("loss");
  of.note = json.at("note");
}

}  // namespace

Tensor LayerSolution::own(DType type, const Shape& shape) {
  return buffers.emplace_back(Buffer::for_tensor(type, shape)).tensor(type, shape);
}

const SolvedModule* LayerSolution::find(std::string_view module) const {
  const auto found = std::find_if(linears.begin(), linears.end(), [&](const auto& of) { return of.module == module; });
  return found == linears.end() ? nullptr : &*found;
}

const Tensor* LayerSolution::tensor(std::string_view name) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const auto& entry) { return entry.first == name; });
  return found == tensors.end() ? nullptr : &found->second;
}

Status LayerSolution::save(const Path& file) const {
  std::vector<std::pair<std::string, Tensor>> parts = tensors;
  Json descriptions = Json::array();
  for (const SolvedModule& of : linears) {
    descriptions.push_back(to_json(of));
    for (const Part& part : kParts) {
      const Tensor& tensor = of.solved.linear.*part.tensor;
      if (!tensor.empty()) parts.emplace_back(of.module + part.suffix, tensor);
    }
  }
  // Wide types first, so that every tensor is aligned in the file.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return size_of(a.second.dtype()) > size_of(b.second.dtype()); });
  std::vector<TensorDeclaration> declarations;
  declarations.reserve(parts.size());
  for (const auto& [name, tensor] : parts) declarations.emplace_back(name, tensor.dtype(), tensor.shape());
  NIBBLE_TRY(writer, SafetensorsWriter::create(file, std::move(declarations), {{kMetadata, descriptions.dump()}}));
  for (const auto& [name, tensor] : parts) NIBBLE_RETURN_IF_ERROR(writer.append(name, tensor));
  return writer.commit();
}

Result<LayerSolution> LayerSolution::load(const Path& path) {
  NIBBLE_TRY(file, Safetensors::open(path));
  const auto damaged = [&] {
    return corrupt("solved layer: expected a file of this run, got another ({})", path.string())
        .with_hint("remove the unfinished output and start again");
  };
  const auto metadata = file.metadata().find(kMetadata);
  if (metadata == file.metadata().end()) return damaged();
  NIBBLE_TRY(descriptions, parse_json(metadata->second, path.filename().string()));
  LayerSolution solution;
  std::vector<std::string_view> of_linears;
  for (const Json& json : descriptions) {
    SolvedModule of;
    try {
      from_json(json, of);
    } catch (const Json::exception&) {
      return damaged();
    }
    for (const Part& part : kParts) {
      const TensorInfo* info = file.find(of.module + part.suffix);
      if (info == nullptr) continue;
      NIBBLE_TRY(tensor, file.tensor(*info));
      of.solved.linear.*part.tensor = tensor;
      of_linears.push_back(info->name);
    }
    if (of.solved.linear.weight.empty()) return damaged();
    solution.linears.push_back(std::move(of));
  }
  for (const TensorInfo& info : file.tensors()) {
    if (std::find(of_linears.begin(), of_linears.end(), info.name) != of_linears.end()) continue;
    NIBBLE_TRY(tensor, file.tensor(info));
    solution.tensors.emplace_back(info.name, tensor);
  }
  solution.mapping = file.mapping();
  return solution;
}

}  // namespace nibble::quantize
