#include "serve/generation_options.h"

#include <algorithm>
#include <limits>

namespace nibble::serve {
namespace {

constexpr int64_t kAnyCount = std::numeric_limits<int64_t>::max();
constexpr int64_t kAnyId = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxStopIds = 1024;
constexpr size_t kNameBytes = 1024;

void read_stop(FieldReader& fields, std::vector<std::string>& out) {
  const Json* value = fields.find("stop");
  if (!value) return;
  const Json list = value->is_string() ? Json::array({*value}) : *value;
  const auto good = [](const Json& text) {
    return text.is_string() && !text.get_ref<const std::string&>().empty() &&
           text.get_ref<const std::string&>().size() <= kMaxStopBytes;
  };
  if (!list.is_array() || list.size() > kMaxStops || !std::ranges::all_of(list, good)) {
    return fields.fail_expected("stop", "a string or a list of at most 16 strings, each of 1 to 256 bytes", *value);
  }
  for (const Json& text : list) out.push_back(text.get<std::string>());
}

void read_stop_token_ids(FieldReader& fields, std::vector<int32_t>& out) {
  const Json* value = fields.find("stop_token_ids");
  if (!value) return;
  const auto good = [](const Json& id) { return as_integer(id).value_or(-1) >= 0 && *as_integer(id) <= kAnyId; };
  if (!value->is_array() || value->size() > kMaxStopIds || !std::ranges::all_of(*value, good)) {
    return fields.fail_expected("stop_token_ids", "a list of at most 1024 token ids", *value);
  }
  for (const Json& id : *value) out.push_back(static_cast<int32_t>(*as_integer(id)));
}

void read_stream_options(FieldReader& fields, bool& include_usage) {
  const Json* value = fields.find("stream_options");
  if (!value) return;
  if (!value->is_object()) return fields.fail_expected("stream_options", "an object", *value);
  FieldReader options(*value, "stream_options");
  options.boolean("include_usage", include_usage);
  options.ignore({"include_obfuscation", "continuous_usage_stats"});
  if (options.error()) fields.fail(*options.error());
}

void refuse_unsupported(FieldReader& fields) {
  int64_t n = 1;
  fields.integer("n", 1, 8, n);
  if (n > 1) fields.fail(not_supported("n", "more than one choice"));
  const Json* bias = fields.find("logit_bias");
  if (bias && !bias->is_object()) fields.fail_expected("logit_bias", "an object", *bias);
  if (bias && !bias->empty()) fields.fail(not_supported("logit_bias", "a bias"));
  fields.refuse({"guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag",
                 "structured_outputs", "thinking_token_budget"});
}

}  // namespace

GenerationOptions read_generation_options(FieldReader& fields) {
  GenerationOptions o;
  fields.string("model", kNameBytes, o.model);
  fields.boolean("stream", o.stream);
  read_stream_options(fields, o.include_usage);

  fields.number("temperature", {0, 2}, o.temperature);
  fields.number("top_p", {0, 1, true}, o.top_p);
  fields.integer("top_k", 0, kAnyId, o.top_k);
  fields.number("min_p", {0, 1}, o.min_p);
  fields.number("presence_penalty", {-2, 2}, o.presence_penalty);
  fields.number("frequency_penalty", {-2, 2}, o.frequency_penalty);
  fields.number("repetition_penalty", {0, 10, true}, o.repetition_penalty);
  fields.integer("seed", std::numeric_limits<int64_t>::min(), kAnyCount, o.seed);

  std::optional<int64_t> max_completion_tokens;
  fields.integer("max_tokens", 1, kAnyCount, o.max_tokens);
  fields.integer("max_completion_tokens", 1, kAnyCount, max_completion_tokens);
  if (max_completion_tokens) o.max_tokens = std::min(o.max_tokens.value_or(kAnyCount), *max_completion_tokens);
  fields.integer("min_tokens", 0, kAnyCount, o.min_tokens);
  fields.boolean("ignore_eos", o.ignore_eos);
  read_stop_token_ids(fields, o.stop_token_ids);
  read_stop(fields, o.stop);
  fields.boolean("include_stop_str_in_output", o.include_stop_str_in_output);

  refuse_unsupported(fields);
  fields.ignore({"user", "metadata", "store", "service_tier", "prediction", "return_token_ids", "cache_salt",
                 "session_id", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
                 "prompt_cache_options", "verbosity"});
  return o;
}

engine::Sampling sampling_of(const GenerationOptions& o, const engine::Sampling& defaults) {
  return {.temperature = o.temperature.value_or(defaults.temperature),
          .top_p = o.top_p.value_or(defaults.top_p),
          .top_k = o.top_k.value_or(defaults.top_k),
          .min_p = o.min_p.value_or(defaults.min_p),
          .presence_penalty = o.presence_penalty.value_or(defaults.presence_penalty),
          .frequency_penalty = o.frequency_penalty.value_or(defaults.frequency_penalty),
          .repetition_penalty = o.repetition_penalty.value_or(defaults.repetition_penalty),
          .seed = o.seed ? std::optional(static_cast<uint64_t>(*o.seed)) : defaults.seed};
}

int64_t token_budget(const GenerationOptions& o, int64_t fallback, int64_t prompt_tokens, int64_t context) {
  const int64_t left = context - prompt_tokens;
  const int64_t wanted = o.max_tokens ? *o.max_tokens : fallback > 0 ? fallback : left;
  return std::min(wanted, left);
}

}  // namespace nibble::serve
