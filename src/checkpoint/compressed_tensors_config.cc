#include "checkpoint/compressed_tensors_config.h"

#include <utility>

#include "checkpoint/json_fields.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kNvfp4 = "nvfp4-pack-quantized";
constexpr const char* kFloat = "float-quantized";
constexpr const char* kMixed = "mixed-precision";
constexpr std::string_view kFormatHint =
    "of the compressed-tensors layout nibble reads nvfp4-pack-quantized, float-quantized and mixtures of both; for "
    "anything else quantize the BF16 model with `nibble quantize`";

Status unknown_format(std::string_view key, std::string_view got, std::string_view where) {
  return unsupported("{}: expected {}, {} or {}, got {} ({})", key, kNvfp4, kFloat, kMixed, got, where)
      .with_hint(std::string(kFormatHint));
}

Result<std::vector<ModuleTarget>> read_targets(const Json& list, const char* key, const char* where) {
  if (!list.is_array()) return corrupt("{}: expected a list of names, got {} ({})", key, list.type_name(), where);
  std::vector<ModuleTarget> targets;
  for (const Json& item : list) {
    NIBBLE_TRY(target, ModuleTarget::read(item, key, where));
    targets.push_back(std::move(target));
  }
  return targets;
}

/// `weights` or `input_activations`: an object, or nullptr for null and absent.
Result<const Json*> read_args(const Json& group, const char* key, const char* where) {
  const Json* args = find_value(group, key);
  if (args == nullptr) return nullptr;
  if (!args->is_object()) return corrupt("{}: expected an object, got {} ({})", key, args->type_name(), where);
  return args;
}

Status check_order(const Json& weights, const char* where) {
  const Json* order = find_value(weights, "actorder");
  if (order == nullptr || *order == "static" || *order == "weight") return {};
  return unsupported("actorder: expected null, \"static\" or \"weight\", got {} ({})", shown(order), where)
      .with_hint("with another order of the columns the scales belong to other weights");
}

/// What both operands of an NVFP4 product state; without one of them the library computes something else.
Status check_nvfp4(const Json& args, const std::string& where) {
  NIBBLE_RETURN_IF_ERROR(require_field(args, "num_bits", 4, where));
  NIBBLE_RETURN_IF_ERROR(require_field(args, "type", "float", where));
  NIBBLE_RETURN_IF_ERROR(require_field(args, "strategy", "tensor_group", where));
  return require_field(args, "group_size", kNvfp4Block, where);
}

Result<StoredFormat> read_nvfp4(const Json& weights, const Json* inputs, const std::string& where) {
  NIBBLE_RETURN_IF_ERROR(check_nvfp4(weights, where + ", weights"));
  StoredFormat out{.algo = kNvfp4, .format = Format::nvfp4};
  if (inputs == nullptr) return out;
  const std::string place = where + ", input_activations";
  NIBBLE_RETURN_IF_ERROR(check_nvfp4(*inputs, place));
  NIBBLE_RETURN_IF_ERROR(require_field(*inputs, "dynamic", "local", place));
  // Writers from before that key leave it out, and with it the library would divide by other scales (a rule of the
  // doctor); what is meant is plain.
  if (find_value(*inputs, "scale_dtype") != nullptr) {
    NIBBLE_RETURN_IF_ERROR(require_field(*inputs, "scale_dtype", "torch.float8_e4m3fn", place));
  }
  out.inputs = Inputs::a4;
  return out;
}

Result<StoredFormat> read_fp8(const Json& weights, const Json* inputs, const std::string& where) {
  const std::string place = where + ", weights";
  NIBBLE_RETURN_IF_ERROR(require_field(weights, "num_bits", 8, place));
  NIBBLE_RETURN_IF_ERROR(require_field(weights, "type", "float", place));
  NIBBLE_TRY(strategy, string_field(weights, "strategy", place.c_str()));
  if (strategy != "tensor" && strategy != "channel") {
    return unsupported("strategy: expected tensor or channel, got {} ({})", strategy.empty() ? "none" : strategy,
                       place);
  }
  StoredFormat out{.algo = kFloat, .format = strategy == "tensor" ? Format::fp8 : Format::fp8_channel};
  if (inputs == nullptr) return out;
  const std::string inputs_place = where + ", input_activations";
  NIBBLE_RETURN_IF_ERROR(require_field(*inputs, "num_bits", 8, inputs_place));
  NIBBLE_RETURN_IF_ERROR(require_field(*inputs, "type", "float", inputs_place));
  const Json* dynamic = find_value(*inputs, "dynamic");
  if (dynamic != nullptr && *dynamic == true) return out;  // per token: such inputs are left as they are here
  NIBBLE_RETURN_IF_ERROR(require_field(*inputs, "strategy", "tensor", inputs_place));
  out.inputs = Inputs::a8;
  return out;
}

/// The group's own format, else that of the whole, else by what its weights are.
Result<std::string> format_word(const Json& group, const std::string& whole, const Json& weights, const char* where) {
  NIBBLE_TRY(own, string_field(group, "format", where));
  if (!own.empty()) return std::move(own);
  if (!whole.empty() && whole != kMixed) return whole;
  const Json* bits = find_value(weights, "num_bits");
  return std::string(bits != nullptr && *bits == 4 ? kNvfp4 : kFloat);
}

Result<CompressedTensorsConfig::Group> read_group(const Json& group, const std::string& whole,
                                                  const std::string& where) {
  if (!group.is_object()) return corrupt("config_groups: expected objects, got {} ({})", group.type_name(), where);
  NIBBLE_TRY(weights, read_args(group, "weights", where.c_str()));
  NIBBLE_TRY(inputs, read_args(group, "input_activations", where.c_str()));
  if (weights == nullptr) return corrupt("weights: expected an object, got none ({})", where);
  if (find_value(group, "output_activations") != nullptr) {
    return unsupported("output_activations: expected null, got {} ({})", shown(find_value(group, "output_activations")),
                       where);
  }
  const Json* dynamic = find_value(*weights, "dynamic");
  if (dynamic != nullptr && *dynamic != false) {
    return unsupported("dynamic: expected false, got {} ({}, weights)", shown(dynamic), where);
  }
  NIBBLE_RETURN_IF_ERROR(check_order(*weights, where.c_str()));
  NIBBLE_TRY(word, format_word(group, whole, *weights, where.c_str()));
  if (word != kNvfp4 && word != kFloat) return unknown_format("format", word, where);
  NIBBLE_TRY(format, word == kNvfp4 ? read_nvfp4(*weights, inputs, where) : read_fp8(*weights, inputs, where));
  const Json* list = find_value(group, "targets");
  if (list == nullptr) return corrupt("targets: expected a list of names, got none ({})", where);
  NIBBLE_TRY(targets, read_targets(*list, "targets", where.c_str()));
  return CompressedTensorsConfig::Group{std::move(format), std::move(targets)};
}

/// The short form {"NVFP4A16": ["Linear"]}.
Result<CompressedTensorsConfig::Group> read_preset(const std::string& preset, const Json& list, const char* where) {
  const std::pair<const char*, StoredFormat> presets[] = {
      {"NVFP4A16", {.algo = kNvfp4, .format = Format::nvfp4}},
      {"NVFP4", {.algo = kNvfp4, .format = Format::nvfp4, .inputs = Inputs::a4}},
      {"FP8", {.algo = kFloat, .format = Format::fp8, .inputs = Inputs::a8}},
      {"FP8_DYNAMIC", {.algo = kFloat, .format = Format::fp8_channel}},
  };
  for (const auto& [name, format] : presets) {
    if (preset != name) continue;
    NIBBLE_TRY(targets, read_targets(list, "targets", where));
    return CompressedTensorsConfig::Group{format, std::move(targets)};
  }
  return unsupported("config_groups: expected the preset NVFP4A16, NVFP4, FP8 or FP8_DYNAMIC, got {} ({})", preset,
                     where)
      .with_hint(std::string(kFormatHint));
}

/// Sections that change what the weights mean.
Status check_others(const Json& section, const char* where) {
  for (const char* key : {"transform_config", "sparsity_config"}) {
    const Json* value = find_value(section, key);
    if (value == nullptr || value->empty()) continue;
    const Json* format = value->is_object() ? find_value(*value, "format") : nullptr;
    if (format != nullptr && *format == "dense") continue;
    return unsupported("{}: expected none, got {} ({})", key, shown(value), where)
        .with_hint("nibble computes neither transformed nor sparse weights");
  }
  return {};
}

}  // namespace

Result<ModuleTarget> ModuleTarget::read(const Json& item, const char* key, const char* where) {
  if (!item.is_string()) return corrupt("{}: expected a list of names, got {} ({})", key, item.type_name(), where);
  ModuleTarget target;
  target.name_ = item.get<std::string>();
  if (target.name_ == "Linear") {
    target.kind_ = Kind::linears;
  } else if (target.name_.starts_with("re:")) {
    target.kind_ = Kind::pattern;
    NIBBLE_TRY(pattern,
               ModulePattern::compile(std::string_view(target.name_).substr(3), key, ModulePattern::Extent::start));
    target.pattern_ = std::move(pattern);
  }
  return target;
}

Result<bool> ModuleTarget::matches(std::string_view module) const {
  if (kind_ == Kind::linears) return true;
  return kind_ == Kind::pattern ? pattern_->matches(module) : Result<bool>(name_ == module);
}

Result<StoredFormat> CompressedTensorsConfig::format_of(std::string_view module) const {
  for (const ModuleTarget& target : ignore) {
    NIBBLE_TRY(ignored, target.matches(module));
    if (ignored) return StoredFormat();
  }
  using Kind = ModuleTarget::Kind;
  for (const Kind kind : {Kind::name, Kind::pattern, Kind::linears}) {
    for (const Group& group : groups) {
      for (const ModuleTarget& target : group.targets) {
        if (target.kind() != kind) continue;
        NIBBLE_TRY(meant, target.matches(module));
        if (meant) return group.format;
      }
    }
  }
  return StoredFormat();
}

Result<CompressedTensorsConfig> read_compressed_tensors(const Json& section, const char* where) {
  CompressedTensorsConfig out;
  NIBBLE_TRY(format, string_field(section, "format", where));
  out.format = std::move(format);
  if (!out.format.empty() && out.format != kNvfp4 && out.format != kFloat && out.format != kMixed) {
    return unknown_format("format", out.format, where);
  }
  NIBBLE_TRY(status, string_field(section, "quantization_status", where));
  if (status != "compressed") {
    return corrupt("quantization_status: expected compressed, got {} ({})", status.empty() ? "none" : status, where)
        .with_hint("compressed-tensors would leave the weights packed and compute with them as they are");
  }
  NIBBLE_RETURN_IF_ERROR(check_others(section, where));
  NIBBLE_TRY(version, string_field(section, "version", where));
  out.version = std::move(version);
  const Json* groups = find_value(section, "config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    return corrupt("config_groups: expected an object of groups, got {} ({})", shown(groups), where);
  }
  for (const auto& [name, group] : groups->items()) {
    const std::string place = fmt::format("{}, {}", where, name);
    NIBBLE_TRY(read, group.is_array() ? read_preset(name, group, where) : read_group(group, out.format, place));
    out.groups.push_back(std::move(read));
  }
  if (out.format.empty()) {
    out.format = out.groups.front().format.algo;
    for (const CompressedTensorsConfig::Group& group : out.groups) {
      if (group.format.algo != out.format) out.format = kMixed;
    }
  }
  if (const Json* list = find_value(section, "ignore")) {
    NIBBLE_TRY(ignore, read_targets(*list, "ignore", where));
    out.ignore = std::move(ignore);
  }
  return out;
}

}  // namespace nibble::checkpoint
