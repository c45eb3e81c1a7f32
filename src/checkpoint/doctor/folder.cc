#include "checkpoint/doctor/folder.h"

#include <cmath>
#include <cstring>

#include "model/names.h"
#include "text/tokenizer_settings.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr const char* kJsonFiles[] = {kConfig,       kGenerationConfig,  kTokenizerConfig, kHfQuant,
                                      kPreprocessor, kVideoPreprocessor, kProcessor};

bool is_there(const Path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Two spaces of indentation. Whole numbers beyond 64 bits keep all their digits: 1e+30 would become a float in Python.
std::string config_text(const Json& json) {
  std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  constexpr double kBeyond = 18446744073709551616.0;
  const std::function<void(const Json&)> restore = [&](const Json& value) {
    if (value.is_structured()) {
      for (const Json& item : value) restore(item);
    }
    if (!value.is_number_float()) return;
    const double number = value.get<double>();
    if (!(std::abs(number) >= kBeyond) || !(std::abs(number) <= 1e40)) return;
    const std::string printed = value.dump(), whole = fmt::format("{:.0f}", number);
    for (size_t at = text.find(": " + printed); at != std::string::npos; at = text.find(": " + printed, at + 1)) {
      text.replace(at + 2, printed.size(), whole);
    }
  };
  restore(json);
  return text;
}

void add_tokens(const Json* list, std::map<std::string, int64_t>& out) {
  if (list == nullptr || !list->is_structured()) return;
  for (const auto& item : list->items()) {
    const Json* content = find_value(item.value(), "content");
    const Json* id = find_value(item.value(), "id");
    if (content == nullptr || !content->is_string()) continue;
    if (id != nullptr && id->is_number_integer()) {
      out.emplace(content->get<std::string>(), id->get<int64_t>());
    } else if (list->is_object() && item.key().size() < 10 &&
               item.key().find_first_not_of("0123456789") == std::string::npos && !item.key().empty()) {
      out.emplace(content->get<std::string>(), std::stoll(item.key()));
    }
  }
}

void add_patterns(const Json& pre_tokenizer, std::vector<std::string>& out) {
  if (const Json* parts = find_value(pre_tokenizer, "pretokenizers"); parts != nullptr && parts->is_array()) {
    for (const Json& part : *parts) add_patterns(part, out);
  }
  const Json* pattern = find_value(pre_tokenizer, "pattern");
  const Json* regex = pattern == nullptr ? nullptr : find_value(*pattern, "Regex");
  if (regex != nullptr && regex->is_string()) out.push_back(regex->get<std::string>());
}

}  // namespace

Result<Folder> Folder::open(const Path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    return not_found("model folder: expected a folder, got none ({})", path.string())
        .with_hint("give the folder of a Hugging Face model");
  }
  if (!is_there(path / kConfig)) {
    return not_found("{}: expected in the model folder, got none ({})", kConfig, path.string())
        .with_hint("give the folder of a Hugging Face model");
  }
  Folder folder;
  folder.path_ = path;
  for (const char* file : kJsonFiles) folder.read_json(file);
  if (const auto fault = folder.faults_.find(kConfig); fault != folder.faults_.end()) return fault->second;
  folder.read_text(kTemplate);
  folder.read_tokenizer();
  folder.read_weights();
  return folder;
}

void Folder::read_json(const std::string& file) {
  if (!is_there(path_ / file)) return;
  const Result<std::string> text = read_file(path_ / file, uint64_t{64} << 20);
  Result<Json> json = text.ok() ? parse_json(*text, file) : Result<Json>(text.status());
  if (json.ok() && !json->is_object()) json = corrupt("{}: expected an object, got {}", file, json->type_name());
  if (!json.ok()) {
    faults_.emplace(file, json.status());
    return;
  }
  json_[file] = *json;
  stored_json_[file] = std::move(*json);
}

void Folder::read_text(const std::string& file) {
  if (!is_there(path_ / file)) return;
  const Result<std::string> text = read_file(path_ / file, text::kMaxTokenizerBytes);
  if (!text.ok()) {
    faults_.emplace(file, text.status());
    return;
  }
  text_[file] = *text;
  stored_text_[file] = *text;
}

void Folder::read_tokenizer() {
  read_text(kTokenizer);
  const std::string* text = this->text(kTokenizer);
  if (text == nullptr) return;
  const Result<text::TokenizerJson> parsed = text::read_tokenizer_json(*text);
  if (!parsed.ok()) {
    faults_.emplace(kTokenizer, parsed.status());
    return;
  }
  tokenizer_.emplace();
  add_tokens(find_value(parsed->settings, "added_tokens"), tokenizer_->added);
  if (const Json* config = json(kTokenizerConfig)) {
    add_tokens(find_value(*config, "added_tokens_decoder"), tokenizer_->added);
  }
  if (const Json* split = find_value(parsed->settings, "pre_tokenizer")) add_patterns(*split, tokenizer_->patterns);
}

void Folder::read_weights() {
  Result<SafetensorsFolder> opened = SafetensorsFolder::open(path_);
  if (!opened.ok()) {
    faults_.emplace("weights", opened.status());
    return;
  }
  weights_ = std::make_unique<SafetensorsFolder>(std::move(*opened));
  for (const SafetensorsFolder::Entry& entry : weights_->tensors()) {
    tensors_.push_back({&entry, entry.info->name, entry.info->shape});
  }
}

const Json* Folder::json(const std::string& file) const {
  const auto found = json_.find(file);
  return found == json_.end() ? nullptr : &found->second;
}

Json& Folder::edit(const std::string& file) {
  const auto [it, created] = json_.try_emplace(file, Json::object());
  return it->second;
}

const std::string* Folder::text(const std::string& file) const {
  const auto found = text_.find(file);
  return found == text_.end() ? nullptr : &found->second;
}

void Folder::set_text(const std::string& file, std::string text) {
  text_[file] = std::move(text);
  if (file != kTokenizer || !tokenizer_) return;
  tokenizer_->patterns.clear();
  const Result<text::TokenizerJson> parsed = text::read_tokenizer_json(text_[file]);
  const Json* split = parsed.ok() ? find_value(parsed->settings, "pre_tokenizer") : nullptr;
  if (split != nullptr) add_patterns(*split, tokenizer_->patterns);
}

bool Folder::wrapped() const {
  const Json* text = find_value(config(), "text_config");
  return text != nullptr && text->is_object();
}

const Json& Folder::text_config() const {
  return wrapped() ? *find_value(config(), "text_config") : config();
}

Json& Folder::edit_text_config() {
  Json& root = edit(kConfig);
  return wrapped() ? root["text_config"] : root;
}

std::string Folder::word(const Json& object, const char* key) const {
  const Json* value = find_value(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

const FolderTensor* Folder::tensor(std::string_view name) const {
  for (const FolderTensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::string_view Folder::prefix() const {
  for (const FolderTensor& tensor : tensors_) {
    for (const std::string_view prefix : {model::kWrappedPrefix, model::kTextPrefix}) {
      if (tensor.name == std::string(prefix) + "embed_tokens.weight") return prefix;
    }
  }
  return {};
}

Result<std::string> Folder::bytes(const FolderTensor& tensor) const {
  if (tensor.bytes) return tensor.bytes();
  const std::span<const std::byte> stored = tensor.stored->file->bytes(*tensor.stored->info);
  return std::string(reinterpret_cast<const char*>(stored.data()), stored.size());
}

std::optional<float> Folder::scalar(const FolderTensor* tensor) const {
  if (tensor == nullptr || tensor->dtype() != "F32" || tensor->stored->info->bytes != sizeof(float)) return {};
  const Result<std::string> raw = bytes(*tensor);
  if (!raw.ok()) return {};
  float value;
  std::memcpy(&value, raw->data(), sizeof value);
  return value;
}

Result<Quantization> Folder::quantization() const {
  const Json* hf = json(kHfQuant);
  return read_quantization(config(), hf == nullptr ? std::nullopt : std::optional<Json>(*hf));
}

std::map<std::string, std::string> Folder::changed_files() const {
  std::map<std::string, std::string> out;
  for (const auto& [file, json] : json_) {
    const auto stored = stored_json_.find(file);
    if (stored == stored_json_.end() || stored->second != json) out[file] = config_text(json);
  }
  for (const auto& [file, text] : text_) {
    const auto stored = stored_text_.find(file);
    if (stored == stored_text_.end() || stored->second != text) out[file] = text;
  }
  return out;
}

bool Folder::changes_tensors() const {
  for (const FolderTensor& tensor : tensors_) {
    if (tensor.changed()) return true;
  }
  return false;
}

}  // namespace nibble::checkpoint::doctor
