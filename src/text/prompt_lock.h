// Prompt lock: what a model was trained to be asked with, so that whoever asks it can be told what differs.
//
// A model that was fine-tuned under one system prompt, one set of tools and one template answers another prompt worse,
// without an error anywhere. Training writes hashes of the three beside the weights; serve and chat compare.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "text/chat_template.h"

namespace nibble::text {

/// What training writes into a checkpoint folder: how the weights came about, and under "prompt" the lock.
constexpr const char* kTrainingFile = "nibble_training.json";

/// All hashes are SHA-256 in hex, of the text alone:
///   template_hash   the template's source
///   system_prompts  of each conversation the first message where that is a system message, else ""
///   tools           of each conversation the tool definitions as one line of JSON, else ""
/// The text is that which the template is given: after normalise_messages and normalise_tools.
struct PromptLock {
  static constexpr size_t kMaxHashes = 4096;  // of a set; a larger one is not kept and matches everything

  std::string template_hash;
  std::optional<std::set<std::string>> system_prompts, tools;
  std::optional<bool> thinking;         // enable_thinking of the prompts; absent: left to the template
  bool think_prefix_is_target = false;  // the empty think block is written by the model, not by the prompt

  bool operator==(const PromptLock&) const = default;
};

/// The two texts that a conversation is looked up by. `messages` and `tools` as the template is given them.
std::string system_prompt_of(const Json& messages);
std::string tools_text_of(const Json& tools);

Json to_json(const PromptLock& lock);
/// Of the whole training file; nothing where it has no lock. Any bytes are `corrupt` or a lock.
Result<std::optional<PromptLock>> parse_prompt_lock(std::string_view file_text, const std::string& where);
/// Of a checkpoint folder; nothing where it was not trained here.
Result<std::optional<PromptLock>> load_prompt_lock(const Path& folder);

/// Compares live prompts with a lock and words each difference once. How many it remembers is bounded. Thread-safe.
class PromptWatch {
 public:
  /// Without a lock it finds nothing.
  explicit PromptWatch(std::optional<PromptLock> lock = {}, const ChatTemplate* chat_template = nullptr);

  /// What differs before the first prompt: the template.
  std::optional<std::string> at_load() const;
  /// What differs and was not told yet. `thinking` is enable_thinking as the template was given it.
  std::vector<std::string> differences(const Json& messages, const Json& tools, std::optional<bool> thinking);

  const std::optional<PromptLock>& lock() const { return lock_; }

 private:
  bool is_new(std::string key);

  std::optional<PromptLock> lock_;
  std::string template_hash_;
  std::map<std::optional<bool>, std::string> questions_;  // what the template makes of one, by enable_thinking
  std::mutex mutex_;
  std::set<std::string> told_;
};

}  // namespace nibble::text
