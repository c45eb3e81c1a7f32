#include "checkpoint/quantization.h"

#include <algorithm>

#include "checkpoint/json_fields.h"
#include "checkpoint/name_pattern.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kHfQuant = "hf_quant_config.json";
constexpr const char* kMixed = "MIXED_PRECISION";
constexpr std::string_view kHint =
    "nibble reads full precision, the ModelOpt layout with NVFP4, W4A16_NVFP4, NVFP4_AWQ, NVFP4_SVD, FP8, "
    "FP8_PER_CHANNEL_PER_TOKEN and MIXED_PRECISION of them, and the compressed-tensors layout with "
    "nvfp4-pack-quantized and float-quantized; for anything else quantize the BF16 model with `nibble quantize`";

/// What an algorithm of ModelOpt stores. The inputs of FP8_PER_CHANNEL_PER_TOKEN have scales of their own at run time
/// there; here they stay as they are.
std::optional<StoredFormat> stored_format(const std::string& algo) {
  const StoredFormat formats[] = {
      {.algo = "NVFP4", .format = Format::nvfp4, .inputs = Inputs::a4},
      {.algo = "W4A16_NVFP4", .format = Format::nvfp4},
      {.algo = "NVFP4_SVD", .format = Format::nvfp4, .inputs = Inputs::a4, .inputs_optional = true, .low_rank = true},
      {.algo = "NVFP4_AWQ",
       .format = Format::nvfp4,
       .inputs = Inputs::a4,
       .inputs_optional = true,
       .input_factors = true},
      {.algo = "FP8", .format = Format::fp8, .inputs = Inputs::a8, .inputs_optional = true},
      {.algo = "FP8_PER_CHANNEL_PER_TOKEN", .format = Format::fp8_channel},
  };
  for (const StoredFormat& format : formats) {
    if (format.algo == algo) return format;
  }
  return {};
}

Status check_algo(const std::string& algo, const char* where) {
  if (algo.empty() || algo == kMixed || stored_format(algo)) return {};
  return unsupported("quant_algo: expected an algorithm of NVFP4 or FP8, got {} ({})", algo, where)
      .with_hint(std::string(kHint));
}

Status check_group_size(const Json& object, const char* where) {
  const Json* size = find_value(object, "group_size");
  if (size == nullptr || *size == kNvfp4Block) return {};
  return unsupported("group_size: expected {}, got {} ({})", kNvfp4Block,
                     size->is_number() ? size->dump() : size->type_name(), where);
}

Status append_patterns(const Json& object, const char* key, const char* where, std::vector<std::string>& out) {
  const Json* list = find_value(object, key);
  if (list == nullptr) return {};
  if (!list->is_array()) return corrupt("{}: expected a list of names, got {} ({})", key, list->type_name(), where);
  for (const Json& item : *list) {
    if (!item.is_string()) return corrupt("{}: expected a list of names, got {} ({})", key, item.type_name(), where);
    const auto& pattern = item.get_ref<const std::string&>();
    if (std::find(out.begin(), out.end(), pattern) == out.end()) out.push_back(pattern);
  }
  return {};
}

Result<std::string> producer_of(const Json& object, const char* where) {
  const Json* producer = find_value(object, "producer");
  if (producer == nullptr || !producer->is_object()) return std::string();
  NIBBLE_TRY(name, string_field(*producer, "name", where));
  NIBBLE_TRY(version, string_field(*producer, "version", where));
  return version.empty() ? std::move(name) : name + " " + version;
}

/// "quantized_layers": {module: {"quant_algo": …, "group_size": 16}}.
Status read_layers(const Json& section, const char* where, Quantization& q) {
  const Json* layers = find_value(section, "quantized_layers");
  if (layers == nullptr) return {};
  if (!layers->is_object()) {
    return corrupt("quantized_layers: expected an object, got {} ({})", layers->type_name(), where);
  }
  for (const auto& [module, layer] : layers->items()) {
    if (!layer.is_object()) return corrupt("{}: expected an object, got {} ({})", module, layer.type_name(), where);
    NIBBLE_TRY(algo, string_field(layer, "quant_algo", where));
    const std::optional<StoredFormat> format = stored_format(algo);
    if (!format) {
      return unsupported("{}: expected an algorithm of NVFP4 or FP8, got {} ({})", module, algo.empty() ? "none" : algo,
                         where)
          .with_hint(std::string(kHint));
    }
    if (format->format == Format::nvfp4) NIBBLE_RETURN_IF_ERROR(check_group_size(layer, where));
    q.layers[model::canonical_module(module)] = *format;
  }
  return {};
}

/// What both files hold alike; `excludes` is the key of the list there.
Status read_section(const Json& section, const char* excludes, const char* where, Quantization& q) {
  NIBBLE_TRY(algo, string_field(section, "quant_algo", where));
  q.algo = std::move(algo);
  NIBBLE_RETURN_IF_ERROR(check_algo(q.algo, where));
  if (q.quantized()) NIBBLE_RETURN_IF_ERROR(check_group_size(section, where));
  if (q.algo == kMixed) NIBBLE_RETURN_IF_ERROR(read_layers(section, where, q));
  return append_patterns(section, excludes, where, q.exclude);
}

Result<Quantization> read_compressed(const Json& section) {
  Quantization q;
  q.layout = Layout::compressed_tensors;
  NIBBLE_TRY(config, read_compressed_tensors(section, kConfig));
  q.compressed = std::move(config);
  q.algo = q.compressed.format;
  q.producer = "compressed-tensors";
  if (!q.compressed.version.empty()) q.producer += " " + q.compressed.version;
  return q;
}

/// quantization_config of config.json, at its root or, as some writers have it, inside text_config.
Result<Quantization> read_config(const Json& config) {
  const Json* section = find_value(config, "quantization_config");
  const Json* text = find_value(config, "text_config");
  if (section == nullptr && text != nullptr && text->is_object()) section = find_value(*text, "quantization_config");
  if (section == nullptr) return Quantization();
  if (!section->is_object()) {
    return corrupt("quantization_config: expected an object, got {} ({})", section->type_name(), kConfig);
  }
  NIBBLE_TRY(method, string_field(*section, "quant_method", kConfig));
  if (method == "compressed-tensors") return read_compressed(*section);
  if (method != "modelopt") {
    return unsupported("quant_method: expected modelopt or compressed-tensors, got {} ({})",
                       method.empty() ? "none" : method, kConfig)
        .with_hint(std::string(kHint));
  }
  Quantization q;
  NIBBLE_RETURN_IF_ERROR(read_section(*section, "ignore", kConfig, q));
  if (q.algo.empty()) return corrupt("quant_algo: expected the name of an algorithm, got none ({})", kConfig);
  NIBBLE_TRY(producer, producer_of(*section, kConfig));
  q.producer = std::move(producer);
  return q;
}

Result<Quantization> read_hf_quant(const Json& root) {
  if (!root.is_object()) return corrupt("quantization: expected an object, got {} ({})", root.type_name(), kHfQuant);
  const Json* section = find_value(root, "quantization");
  if (section == nullptr) return Quantization();
  if (!section->is_object()) {
    return corrupt("quantization: expected an object, got {} ({})", section->type_name(), kHfQuant);
  }
  Quantization q;
  NIBBLE_RETURN_IF_ERROR(read_section(*section, "exclude_modules", kHfQuant, q));
  NIBBLE_TRY(producer, producer_of(root, kHfQuant));
  q.producer = std::move(producer);
  return q;
}

/// config.json's answer with what hf_quant_config.json adds.
Result<Quantization> merged(Quantization q, Quantization older) {
  if (!older.quantized()) return q;
  if (!q.quantized()) return older;
  if (older.algo != q.algo) {
    return corrupt("quant_algo: expected {} as in {}, got {} ({})", q.algo, kConfig, older.algo, kHfQuant);
  }
  if (q.layers.empty()) q.layers = older.layers;
  if (!older.layers.empty() && older.layers != q.layers) {
    return corrupt("quantized_layers: expected the modules of {}, got others ({})", kConfig, kHfQuant);
  }
  for (std::string& pattern : older.exclude) {
    if (std::find(q.exclude.begin(), q.exclude.end(), pattern) == q.exclude.end()) {
      q.exclude.push_back(std::move(pattern));
    }
  }
  return q;
}

}  // namespace

bool matches_module(std::string_view pattern, std::string_view module) {
  if (pattern.find('*') != std::string_view::npos) return glob(pattern, module);
  if (pattern.empty()) return false;
  for (size_t at = module.find(pattern); at != std::string_view::npos; at = module.find(pattern, at + 1)) {
    const size_t end = at + pattern.size();
    if ((at == 0 || module[at - 1] == '.') && (end == module.size() || module[end] == '.')) return true;
  }
  return false;
}

bool Quantization::excludes(std::string_view module) const {
  const std::string name = model::canonical_module(module);
  return std::any_of(exclude.begin(), exclude.end(), [&](const std::string& pattern) {
    return matches_module(model::canonical_module(pattern), name);
  });
}

Result<StoredFormat> Quantization::format_of(std::string_view module) const {
  if (!quantized()) return StoredFormat();
  if (layout == Layout::compressed_tensors) return compressed.format_of(module);
  if (algo == kMixed) {
    const auto found = layers.find(model::canonical_module(module));
    return found != layers.end() ? found->second : StoredFormat();
  }
  return excludes(module) ? StoredFormat() : *stored_format(algo);
}

Result<Quantization> read_quantization(const Json& config, const std::optional<Json>& hf_quant_config) {
  NIBBLE_TRY(embedded, read_config(config));
  Quantization q = std::move(embedded);
  if (hf_quant_config && q.layout == Layout::modelopt) {
    NIBBLE_TRY(older, read_hf_quant(*hf_quant_config));
    NIBBLE_TRY(both, merged(std::move(q), std::move(older)));
    q = std::move(both);
  }
  if (q.algo == kMixed && q.layers.empty()) {
    return corrupt("quantized_layers: expected a module or more, got none ({})", kConfig);
  }
  return q;
}

}  // namespace nibble::checkpoint
