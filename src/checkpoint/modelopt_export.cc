#include "checkpoint/modelopt_export.h"

#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kProducerVersion = "0.47.0";  // of the exporter whose layout this is

const char* quant_algo(const ModelOptConfig& config) {
  return config.quantized_inputs ? "NVFP4" : "W4A16_NVFP4";
}

Json producer() {
  return {{"name", "modelopt"}, {"version", kProducerVersion}};
}

Json operand() {
  return {{"dynamic", false}, {"num_bits", 4}, {"type", "float"}, {"group_size", kNvfp4Block}};
}

}  // namespace

Json hf_quant_config(const ModelOptConfig& config) {
  // vLLM demands the three keys after quant_algo, null or not.
  return {{"producer", producer()},
          {"quantization",
           {{"quant_algo", quant_algo(config)},
            {"kv_cache_quant_algo", nullptr},
            {"group_size", kNvfp4Block},
            {"exclude_modules", config.exclude_modules}}}};
}

Json quantization_config(const ModelOptConfig& config) {
  Json group;
  if (config.quantized_inputs) group["input_activations"] = operand();
  group["weights"] = operand();
  group["targets"] = Json::array({"Linear"});
  return {{"config_groups", {{"group_0", std::move(group)}}},
          {"ignore", config.exclude_modules},
          {"quant_algo", quant_algo(config)},
          {"producer", producer()},
          {"quant_method", "modelopt"}};
}

std::string config_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace nibble::checkpoint
