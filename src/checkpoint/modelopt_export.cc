#include "checkpoint/modelopt_export.h"

#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kProducerVersion = "0.47.0";  // of the exporter whose layout this is
constexpr const char* kMixed = "MIXED_PRECISION";

std::string_view quant_algo(const QuantizedModules& modules) {
  return modules.uniform() ? quant_algo(modules.quantized.front()) : kMixed;
}

Json producer() {
  return {{"name", "modelopt"}, {"version", kProducerVersion}};
}

Json operand(bool four_bits) {
  Json json = {{"dynamic", false}, {"num_bits", four_bits ? 4 : 8}, {"type", "float"}};
  if (four_bits) json["group_size"] = kNvfp4Block;
  return json;
}

Json quantized_layers(const QuantizedModules& modules) {
  Json layers = Json::object();
  for (const QuantizedModule& module : modules.quantized) {
    Json layer = {{"quant_algo", quant_algo(module)}};
    if (module.format == Format::nvfp4) layer["group_size"] = kNvfp4Block;
    layers[module.name] = std::move(layer);
  }
  return layers;
}

}  // namespace

std::string_view quant_algo(const QuantizedModule& module) {
  switch (module.format) {
    case Format::fp8:
      return "FP8";
    case Format::fp8_channel:
      return "FP8_PER_CHANNEL_PER_TOKEN";
    default:
      if (module.low_rank) return "NVFP4_SVD";
      return module.inputs == Inputs::a16 ? "W4A16_NVFP4" : "NVFP4";
  }
}

Json hf_quant_config(const QuantizedModules& modules) {
  // vLLM demands group_size, kv_cache_quant_algo and exclude_modules beside NVFP4, null or not.
  Json quantization = {{"quant_algo", quant_algo(modules)},
                       {"kv_cache_quant_algo", modules.fp8_kv ? Json("FP8") : Json(nullptr)}};
  if (!modules.uniform()) {
    quantization["quantized_layers"] = quantized_layers(modules);
  } else if (modules.quantized.front().format == Format::nvfp4) {
    quantization["group_size"] = kNvfp4Block;
  }
  quantization["exclude_modules"] = excluded_patterns(modules);
  return {{"producer", producer()}, {"quantization", std::move(quantization)}};
}

Json quantization_config(const QuantizedModules& modules) {
  Json groups = Json::object();
  for (const FormGroup& form : form_groups(modules)) {
    const bool four_bits = form.format == Format::nvfp4;
    Json group = Json::object();
    if (form.inputs != Inputs::a16) group["input_activations"] = operand(four_bits);
    group["weights"] = operand(four_bits);
    group["targets"] = modules.uniform() ? std::vector<std::string>{"Linear"} : form.modules;
    groups[fmt::format("group_{}", groups.size())] = std::move(group);
  }
  Json config = {{"config_groups", std::move(groups)}};
  if (!modules.uniform()) config["quantized_layers"] = quantized_layers(modules);
  config["ignore"] = excluded_patterns(modules);
  config["quant_algo"] = quant_algo(modules);
  if (modules.fp8_kv) config["kv_cache_scheme"] = operand(false);
  config["producer"] = producer();
  config["quant_method"] = "modelopt";
  return config;
}

std::string config_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace nibble::checkpoint
