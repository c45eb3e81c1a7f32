#include "serve/completion_request.h"

#include <fmt/format.h>

#include <limits>

#include "serve/field_reader.h"

namespace nibble::serve {
namespace {

constexpr size_t kMaxPrompts = 64;

std::optional<ApiError> read_one(const Json& value, const std::string& where, CompletionPrompt& out) {
  if (value.is_string()) {
    out = value.get<std::string>();
    return std::nullopt;
  }
  std::vector<int32_t> ids;
  auto error = read_token_ids(value, where, ids);
  out = std::move(ids);
  return error;
}

// A list of integers is one prompt, any other list is a batch of prompts.
void read_prompts(FieldReader& fields, std::vector<CompletionPrompt>& out) {
  const Json* prompt = fields.find("prompt");
  if (!fields.ok()) return;
  if (!prompt || (!prompt->is_string() && !prompt->is_array()) || (prompt->is_array() && prompt->empty())) {
    return fields.fail(invalid_value("prompt", "expected a string, a list of token ids, or a list of those, got " +
                                                   (prompt ? shown(*prompt) : "nothing")));
  }
  const bool batch = prompt->is_array() && !(*prompt)[0].is_number();
  if (batch && prompt->size() > kMaxPrompts) {
    return fields.fail_expected("prompt", fmt::format("at most {} prompts", kMaxPrompts), *prompt);
  }
  out.resize(batch ? prompt->size() : 1);
  for (size_t i = 0; i < out.size(); ++i) {
    auto error =
        batch ? read_one((*prompt)[i], fmt::format("prompt[{}]", i), out[i]) : read_one(*prompt, "prompt", out[i]);
    if (error) return fields.fail(std::move(*error));
  }
}

}  // namespace

std::optional<ApiError> read_token_ids(const Json& list, const std::string& where, std::vector<int32_t>& out) {
  if (!list.is_array()) return invalid_value(where, "expected a list of token ids, got " + shown(list));
  out.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const auto id = as_integer(list[i]);
    if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      return invalid_value(fmt::format("{}[{}]", where, i), "expected a token id, got " + shown(list[i]));
    }
    out.push_back(static_cast<int32_t>(*id));
  }
  return std::nullopt;
}

std::optional<ApiError> read_completion_request(const Json& body, CompletionRequest& out) {
  FieldReader fields(body, "");
  read_prompts(fields, out.prompts);
  out.generation = read_generation_options(fields);

  bool echo = false;
  int64_t best_of = 1, logprobs = 0;
  std::string suffix;
  fields.boolean("echo", echo);
  if (echo) fields.fail(not_supported("echo", "true"));
  fields.integer("best_of", 1, 20, best_of);
  if (best_of > 1) fields.fail(not_supported("best_of", "more than 1"));
  fields.integer("logprobs", 0, 5, logprobs);
  if (fields.find("logprobs")) fields.fail(not_supported("logprobs", "this field"));
  fields.string("suffix", size_t{8} << 20, suffix);
  if (!suffix.empty()) fields.fail(not_supported("suffix", "text after the completion"));
  fields.refuse({"response_format"});
  out.unknown_fields = fields.unknown();
  return fields.error();
}

}  // namespace nibble::serve
