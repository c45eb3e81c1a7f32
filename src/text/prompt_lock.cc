#include "text/prompt_lock.h"

#include <algorithm>

#include "base/sha256.h"

namespace nibble::text {
namespace {

constexpr const char* kThinking = "enable_thinking";

bool is_hash(const Json& value) {
  return value.is_string() && value.get_ref<const std::string&>().size() == 64 &&
         std::ranges::all_of(value.get_ref<const std::string&>(),
                             [](char c) { return ('0' <= c && c <= '9') || ('a' <= c && c <= 'f'); });
}

Json hashes_json(const std::optional<std::set<std::string>>& hashes) {
  return hashes && hashes->size() <= PromptLock::kMaxHashes ? Json(*hashes) : Json();
}

Result<std::optional<std::set<std::string>>> read_hashes(const Json& lock, const char* key, const std::string& where) {
  const Json* value = find_value(lock, key);
  if (value == nullptr) return std::optional<std::set<std::string>>();
  const bool sound = value->is_array() && value->size() <= PromptLock::kMaxHashes &&
                     std::all_of(value->begin(), value->end(), is_hash);
  if (!sound) {
    return corrupt("{}: prompt.{}: expected at most {} SHA-256 hashes", where, key, PromptLock::kMaxHashes);
  }
  return std::optional(value->get<std::set<std::string>>());
}

const char* word(std::optional<bool> thinking) {
  return !thinking ? "left to the template" : *thinking ? "on" : "off";
}

}  // namespace

std::string system_prompt_of(const Json& messages) {
  if (!messages.is_array() || messages.empty() || !messages[0].is_object()) return {};
  const Json *role = find_value(messages[0], "role"), *content = find_value(messages[0], "content");
  if (role == nullptr || *role != "system" || content == nullptr) return {};
  return content->is_string() ? content->get<std::string>() : content->dump();
}

std::string tools_text_of(const Json& tools) {
  return tools.is_null() || tools.empty() ? std::string() : tools.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json to_json(const PromptLock& lock) {
  return {{"template", lock.template_hash},
          {"system_prompts", hashes_json(lock.system_prompts)},
          {"tools", hashes_json(lock.tools)},
          {"thinking", lock.thinking ? Json(*lock.thinking) : Json()},
          {"think_prefix", lock.think_prefix_is_target ? "target" : "prompt"}};
}

Result<std::optional<PromptLock>> parse_prompt_lock(std::string_view file_text, const std::string& where) {
  NIBBLE_TRY(root, parse_json(file_text, where));
  if (!root.is_object()) return corrupt("{}: expected an object, got {}", where, root.type_name());
  const Json* json = find_value(root, "prompt");
  if (json == nullptr) return std::optional<PromptLock>();
  if (!json->is_object()) return corrupt("{}: prompt: expected an object, got {}", where, json->type_name());
  PromptLock lock;
  const Json *hash = find_value(*json, "template"), *thinking = find_value(*json, "thinking"),
             *prefix = find_value(*json, "think_prefix");
  if (hash == nullptr || !is_hash(*hash)) return corrupt("{}: prompt.template: expected a SHA-256 hash", where);
  lock.template_hash = hash->get<std::string>();
  NIBBLE_TRY(system_prompts, read_hashes(*json, "system_prompts", where));
  lock.system_prompts = std::move(system_prompts);
  NIBBLE_TRY(tools, read_hashes(*json, "tools", where));
  lock.tools = std::move(tools);
  if (thinking != nullptr) {
    if (!thinking->is_boolean()) return corrupt("{}: prompt.thinking: expected true, false or null", where);
    lock.thinking = thinking->get<bool>();
  }
  if (prefix == nullptr || (*prefix != "prompt" && *prefix != "target")) {
    return corrupt("{}: prompt.think_prefix: expected \"prompt\" or \"target\"", where);
  }
  lock.think_prefix_is_target = *prefix == "target";
  return std::optional(std::move(lock));
}

Result<std::optional<PromptLock>> load_prompt_lock(const Path& folder) {
  constexpr size_t kMaxBytes = size_t{1} << 20;  // both sets full: 0.6 MB
  const Path file = folder / kTrainingFile;
  auto text = read_file(file, kMaxBytes);
  if (text.status().code() == Code::not_found) return std::optional<PromptLock>();
  NIBBLE_RETURN_IF_ERROR(text.status());
  return parse_prompt_lock(*text, file.string());
}

PromptWatch::PromptWatch(std::optional<PromptLock> lock, const ChatTemplate* chat_template) : lock_(std::move(lock)) {
  if (!lock_ || chat_template == nullptr) return;
  template_hash_ = sha256_of(chat_template->source());
  const Json question = {{{"role", "user"}, {"content", "?"}}};
  for (const std::optional<bool> thinking : {std::optional<bool>(), std::optional(false), std::optional(true)}) {
    RenderOptions options;
    if (thinking) options.kwargs[kThinking] = *thinking;
    const auto rendered = chat_template->render(question, Json(), options);
    questions_[thinking] = rendered.ok() ? rendered->text : "";
  }
}

std::optional<std::string> PromptWatch::at_load() const {
  if (!lock_ || template_hash_ == lock_->template_hash) return {};
  return fmt::format("the chat template (sha256 {:.12}) is not the one that the model was trained with ({:.12})",
                     template_hash_, lock_->template_hash);
}

bool PromptWatch::is_new(std::string key) {
  constexpr size_t kMaxTold = 1000;
  const std::lock_guard lock(mutex_);
  return told_.size() < kMaxTold && told_.insert(std::move(key)).second;
}

std::vector<std::string> PromptWatch::differences(const Json& messages, const Json& tools,
                                                  std::optional<bool> thinking) {
  std::vector<std::string> list;
  if (!lock_) return list;
  const auto compare = [&](const char* what, const char* is, const std::string& text,
                           const std::optional<std::set<std::string>>& known) {
    if (!known) return;
    const std::string hash = sha256_of(text);
    if (known->contains(hash) || !is_new(what + hash)) return;
    list.push_back(text.empty()
                       ? fmt::format("there {} no {}, and the model was never trained without", is, what)
                       : fmt::format("the {} (sha256 {:.12}) {} none of the {} that the model was trained with", what,
                                     hash, is, known->size()));
  };
  compare("system prompt", "is", system_prompt_of(messages), lock_->system_prompts);
  compare("tools", "are", tools_text_of(tools), lock_->tools);
  if (!questions_.empty() && questions_.at(thinking) != questions_.at(lock_->thinking) &&
      is_new(std::string(kThinking) + word(thinking))) {
    list.push_back(
        fmt::format("thinking is {}, but the model was trained with it {}", word(thinking), word(lock_->thinking)));
  }
  return list;
}

}  // namespace nibble::text
