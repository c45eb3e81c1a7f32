#include "checkpoint/compressed_tensors_export.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kPacked = "nvfp4-pack-quantized";
constexpr const char* kFloat = "float-quantized";
constexpr const char* kMixed = "mixed-precision";

const char* format_of(Format format) {
  return format == Format::nvfp4 ? kPacked : kFloat;
}

Json four_bit_scheme(const Json& dynamic, const char* observer) {
  return {{"num_bits", 4},
          {"type", "float"},
          {"strategy", "tensor_group"},
          {"group_size", kNvfp4Block},
          {"symmetric", true},
          {"dynamic", dynamic},
          {"actorder", nullptr},
          {"block_structure", nullptr},
          {"observer", observer},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", "torch.float8_e4m3fn"},
          {"zp_dtype", "torch.float8_e4m3fn"}};
}

Json fp8_scheme(const char* strategy, const char* observer) {
  return {{"num_bits", 8},          {"type", "float"},
          {"strategy", strategy},   {"group_size", nullptr},
          {"symmetric", true},      {"dynamic", false},
          {"actorder", nullptr},    {"block_structure", nullptr},
          {"observer", observer},   {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr}, {"zp_dtype", nullptr}};
}

Json group_of(const FormGroup& form, bool every_linear) {
  constexpr const char* kWeights = "memoryless_minmax";
  constexpr const char* kStatic = "static_minmax";
  const bool four_bits = form.format == Format::nvfp4;
  Json weights = four_bits ? four_bit_scheme(false, kWeights)
                           : fp8_scheme(form.format == Format::fp8 ? "tensor" : "channel", kWeights);
  Json inputs;
  if (form.inputs != Inputs::a16)
    inputs = four_bits ? four_bit_scheme("local", kStatic) : fp8_scheme("tensor", kStatic);
  return {{"format", format_of(form.format)},
          {"targets", every_linear ? std::vector<std::string>{"Linear"} : form.modules},
          {"output_activations", nullptr},
          {"weights", std::move(weights)},
          {"input_activations", std::move(inputs)}};
}

// Draft head and vision tower by one expression each, everything else by name.
std::vector<std::string> ignored(const QuantizedModules& modules) {
  std::set<std::string> names;
  for (const std::string& name : modules.unquantized) {
    if (name.starts_with("mtp.")) {
      names.insert("re:^mtp.*");
    } else if (name.find("visual") != std::string::npos) {
      names.insert("re:.*visual.*");
    } else {
      names.insert(name);
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace

Json compressed_tensors_config(const QuantizedModules& modules) {
  const std::vector<FormGroup> forms = form_groups(modules);
  const bool one_format = std::all_of(forms.begin(), forms.end(), [&](const FormGroup& form) {
    return format_of(form.format) == format_of(forms.front().format);
  });
  const bool head = std::any_of(modules.quantized.begin(), modules.quantized.end(),
                                [](const QuantizedModule& module) { return module.name == "lm_head"; });
  Json groups = Json::object();
  for (const FormGroup& form : forms) {
    // A server's head is no "Linear".
    groups[fmt::format("group_{}", groups.size())] = group_of(form, forms.size() == 1 && !head);
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", one_format ? format_of(forms.front().format) : kMixed},
          {"quantization_status", "compressed"},
          {"global_compression_ratio", nullptr},
          {"kv_cache_scheme", nullptr},
          {"config_groups", std::move(groups)},
          {"ignore", ignored(modules)}};
}

}  // namespace nibble::checkpoint
