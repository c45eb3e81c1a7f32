#include "checkpoint/quantization.h"

#include <algorithm>

#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kHfQuant = "hf_quant_config.json";
constexpr std::string_view kHint = "nibble reads NVFP4 and W4A16_NVFP4 in the ModelOpt layout, and full precision";

Result<std::string> string_of(const Json& object, const char* key, const char* where) {
  const Json* value = find_value(object, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return corrupt("{}: expected a string, got {} ({})", key, value->type_name(), where);
  return value->get<std::string>();
}

Status check_algo(const std::string& algo, const char* where) {
  if (algo.empty() || algo == "NVFP4" || algo == "W4A16_NVFP4") return {};
  return unsupported("quant_algo: expected NVFP4 or W4A16_NVFP4, got {} ({})", algo, where)
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
  NIBBLE_TRY(name, string_of(*producer, "name", where));
  NIBBLE_TRY(version, string_of(*producer, "version", where));
  return version.empty() ? std::move(name) : name + " " + version;
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
  NIBBLE_TRY(method, string_of(*section, "quant_method", kConfig));
  if (method != "modelopt") {
    return unsupported("quant_method: expected modelopt, got {} ({})", method.empty() ? "none" : method, kConfig)
        .with_hint(std::string(kHint));
  }
  Quantization q;
  NIBBLE_TRY(algo, string_of(*section, "quant_algo", kConfig));
  q.algo = std::move(algo);
  if (q.algo.empty()) return corrupt("quant_algo: expected NVFP4 or W4A16_NVFP4, got none ({})", kConfig);
  NIBBLE_RETURN_IF_ERROR(check_algo(q.algo, kConfig));
  NIBBLE_RETURN_IF_ERROR(check_group_size(*section, kConfig));
  NIBBLE_RETURN_IF_ERROR(append_patterns(*section, "ignore", kConfig, q.exclude));
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
  NIBBLE_TRY(algo, string_of(*section, "quant_algo", kHfQuant));
  q.algo = std::move(algo);
  NIBBLE_RETURN_IF_ERROR(check_algo(q.algo, kHfQuant));
  if (q.quantized()) NIBBLE_RETURN_IF_ERROR(check_group_size(*section, kHfQuant));
  NIBBLE_RETURN_IF_ERROR(append_patterns(*section, "exclude_modules", kHfQuant, q.exclude));
  NIBBLE_TRY(producer, producer_of(root, kHfQuant));
  q.producer = std::move(producer);
  return q;
}

/// Iterative matching with one point to return to, so the cost is at most pattern x name.
bool glob(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
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

Result<Quantization> read_quantization(const Json& config, const std::optional<Json>& hf_quant_config) {
  NIBBLE_TRY(q, read_config(config));
  if (!hf_quant_config) return std::move(q);
  NIBBLE_TRY(older, read_hf_quant(*hf_quant_config));
  if (!older.quantized()) return std::move(q);
  if (!q.quantized()) return std::move(older);
  if (older.algo != q.algo) {
    return corrupt("quant_algo: expected {} as in {}, got {} ({})", q.algo, kConfig, older.algo, kHfQuant);
  }
  for (std::string& pattern : older.exclude) {
    if (std::find(q.exclude.begin(), q.exclude.end(), pattern) == q.exclude.end()) {
      q.exclude.push_back(std::move(pattern));
    }
  }
  return std::move(q);
}

}  // namespace nibble::checkpoint
