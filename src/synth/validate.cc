#include "synth/validate.h"

#include <algorithm>

#include "gate/chat_stream.h"
#include "synth/conversation.h"
#include "synth/personal_data.h"
#include "synth/roles.h"
#include "text/detect.h"
#include "text/novel.h"
#include "text/repetition.h"
#include "text/sentences.h"
#include "text/utf8.h"
#include "text/words.h"

namespace nibble::synth {
namespace {

const std::string& text_of(const Json& message) {
  return message["content"].get_ref<const std::string&>();
}

Status check_tool_name(const std::map<std::string, gate::JsonSchema>& tools, const std::string& name,
                       const std::string& where) {
  if (name.empty() || tools.contains(name)) return {};
  return corrupt("{}: expected a tool of the recipe, got \"{}\"", where, name);
}

// What every message, whoever said it, must not hold.
Status personal_data_faults(const Json& messages, std::vector<Fault>& faults) {
  for (const Json& message : messages) {
    if (message["role"] == "system") continue;
    std::string text = text_of(message);
    for_each_call(message,
                  [&](const Json& function) { text.append(1, '\n').append(gate::dump(function["arguments"])); });
    NIBBLE_TRY(found, find_personal_data(text::sanitize_utf8(text)));
    if (found) faults.push_back({"personal_data", fmt::format("a {}: {}", found->kind, found->text)});
  }
  return {};
}

Status pattern_faults(const Rules& rules, const Json& messages, std::vector<Fault>& faults) {
  for (const PatternRule& rule : rules.patterns) {
    bool any = false;
    for (const Json& message : messages) {
      if (message["role"] != rule.role) continue;
      NIBBLE_TRY(hit, rule.pattern.matches(text_of(message)));
      any |= hit;
    }
    if (any != rule.must) faults.push_back({"pattern", rule.name});
  }
  return {};
}

// One turn of the user: what was found, done and answered.
struct TurnView {
  int64_t calls = 0, results = 0, empty = 0, failed = 0;
};

}  // namespace

std::string to_text(const std::vector<Fault>& faults) {
  std::string text;
  for (const Fault& fault : faults) text += (text.empty() ? "" : "\n") + fault.reason + ": " + fault.detail;
  return text;
}

Result<Validator> Validator::make(const Recipe& recipe, RecordCheck check, const HoldOut* hold_out) {
  Validator validator(std::move(check), recipe.hold_out.pairs ? nullptr : hold_out);
  for (const Json& tool : recipe.tools) {
    const Json* function = tool.is_object() ? find_value(tool, "function") : nullptr;
    const Json* name = function != nullptr && function->is_object() ? find_value(*function, "name") : nullptr;
    if (name == nullptr || !name->is_string()) {
      return corrupt("{}: tools: expected OpenAI tool definitions, got {}", recipe.name, tool.dump().substr(0, 100));
    }
    const Json* parameters = find_value(*function, "parameters");
    const std::string where = fmt::format("{}: tool {}", recipe.name, name->get<std::string>());
    NIBBLE_TRY(schema, gate::JsonSchema::compile(parameters == nullptr ? Json(true) : *parameters, where));
    if (!schema.unknown_keywords().empty()) {
      return unsupported("{}: parameters: expected keywords that are checked, got {}", where,
                         schema.unknown_keywords().front());
    }
    validator.tools_.emplace(name->get<std::string>(), std::move(schema));
  }
  for (const Category& category : recipe.categories) {
    const std::string where = fmt::format("{}: {}", recipe.name, category.id);
    for (const std::string& tool : category.rules.call_one_of) {
      NIBBLE_RETURN_IF_ERROR(check_tool_name(validator.tools_, tool, where));
    }
    for (const std::string& detector : category.rules.clean) {
      if (!text::detector_family(detector))
        return corrupt("{}: clean: expected a detector, got \"{}\"", where, detector);
    }
    NIBBLE_TRY(encoding, text::EncodingCheck::for_scripts(category.rules.scripts));
    validator.encodings_.emplace(category.id, std::move(encoding));
  }
  for (const Exchange& exchange : recipe.exchanges) {
    for (const Step& step : exchange.steps) {
      NIBBLE_RETURN_IF_ERROR(check_tool_name(validator.tools_, step.call, recipe.name + ": exchange " + exchange.id));
    }
  }
  return validator;
}

Status Validator::spoken_faults(const Category& category, const std::string& text, std::vector<Fault>& faults) const {
  const Rules& rules = category.rules;
  for (const std::string& detector : rules.clean) {
    NIBBLE_TRY(hits, text::detect_named(detector, text));
    if (!hits.empty()) faults.push_back({detector, fmt::format("\"{}\" ({})", hits[0].snippet, hits[0].detector)});
  }
  NIBBLE_TRY(characters, encodings_.at(category.id).detect(text));
  if (!characters.empty())
    faults.push_back({"encoding", fmt::format("\"{}\" ({})", characters[0].snippet, characters[0].detector)});
  NIBBLE_TRY(circles, text::detect_repetition(text));
  if (!circles.empty()) faults.push_back({"repetition", fmt::format("\"{}\"", circles[0].snippet)});
  const auto sentences = static_cast<int64_t>(text::sentences(text, text::SentenceSplitter::kNoLimit).size());
  if (rules.sentences > 0 && sentences > rules.sentences) {
    faults.push_back({"long_reply", fmt::format("{} sentences where {} are allowed", sentences, rules.sentences)});
  }
  const auto words = static_cast<int64_t>(text::words(text).size());
  if (rules.words > 0 && words > rules.words) {
    faults.push_back({"long_reply", fmt::format("{} words where {} are allowed", words, rules.words)});
  }
  return {};
}

Status Validator::call_faults(const Json& message, std::vector<Fault>& faults) const {
  Status status;
  for_each_call(message, [&](const Json& function) {
    const auto name = function["name"].get<std::string>();
    const auto tool = tools_.find(name);
    if (tool == tools_.end()) return faults.push_back({"tool", fmt::format("there is no tool {}", name)});
    const Json& arguments = function["arguments"];
    if (!arguments.is_object()) {
      return faults.push_back(
          {"arguments", fmt::format("{}: expected a JSON object, got {}", name, arguments.dump().substr(0, 100))});
    }
    const auto violation = tool->second.violation(arguments);
    if (!violation.ok()) {
      status = violation.status();
    } else if (*violation) {
      faults.push_back({"arguments", name + **violation});
    }
  });
  return status;
}

Result<std::vector<Fault>> Validator::message_faults(const Category& category, const Json& message) const {
  std::vector<Fault> faults;
  const std::string& text = text_of(message);
  if (message.contains("reasoning_content")) faults.push_back({"thinking", "reasoning beside the answer"});
  if (category.rules.direct && count_calls(Json::array({message})) > 0 && !text.empty()) {
    faults.push_back({"direct", "a message that calls a tool says something beside it"});
  }
  if (!text.empty()) NIBBLE_RETURN_IF_ERROR(spoken_faults(category, text, faults));
  NIBBLE_RETURN_IF_ERROR(call_faults(message, faults));
  return faults;
}

// What the turns of a conversation claim, and whether their results bear it.
Status Validator::turn_faults(const Category& category, const Json& messages, std::vector<Fault>& faults) const {
  TurnView turn;
  std::string context;
  for (const Json& message : messages) {
    const std::string& text = text_of(message);
    const auto role = message["role"].get<std::string>();
    if (role == "user") turn = {};
    if (role == "tool") {
      ++turn.results;
      turn.empty += is_empty_result(text) ? 1 : 0;
      turn.failed += is_failed_result(text) ? 1 : 0;
    }
    if (role == "assistant") {
      turn.calls += count_calls(Json::array({message}));
      if (category.rules.phantom && !text.empty()) {
        NIBBLE_TRY(claims, text::detect_phantom(text, static_cast<size_t>(turn.calls)));
        if (!claims.empty()) faults.push_back({"phantom", fmt::format("\"{}\" without a call", claims[0].snippet)});
      }
      if (category.rules.honest && turn.results > 0 && turn.results == turn.empty && !message.contains("tool_calls")) {
        NIBBLE_TRY(owned, text::detect_refuse(text));
        if (owned.empty()) faults.push_back({"honest", "the tool found nothing, and the reply does not say so"});
        const std::vector<std::string> made_up = text::novel(text, context);
        if (!made_up.empty())
          faults.push_back({"honest", fmt::format("the tool found nothing, but the reply knows of {}", made_up[0])});
      }
    }
    context += text + "\n";
  }
  return {};
}

Status Validator::set_wide_faults(const Category& category, const Json& record, std::vector<Fault>& faults) const {
  const Rules& rules = category.rules;
  const Json& messages = record["messages"];
  const int64_t calls = count_calls(messages);
  if (!rules.calls.holds(calls)) {
    faults.push_back(
        {"calls", fmt::format("{} calls where {} to {} are asked for", calls, rules.calls.low, rules.calls.high)});
  }
  bool called = rules.call_one_of.empty();
  for (const Json& message : messages) {
    for_each_call(message, [&](const Json& function) {
      const auto& names = rules.call_one_of;
      called |= std::find(names.begin(), names.end(), function["name"].get<std::string>()) != names.end();
    });
  }
  if (!called)
    faults.push_back({"wrong_tool", fmt::format("expected a call of {}", fmt::join(rules.call_one_of, " or "))});
  if (rules.personal_data) NIBBLE_RETURN_IF_ERROR(personal_data_faults(messages, faults));
  NIBBLE_RETURN_IF_ERROR(pattern_faults(rules, messages, faults));
  const auto tokens = check_.tokens(record);
  if (!tokens.ok()) {
    faults.push_back({"record", tokens.status().message()});
  } else if (!rules.tokens.holds(*tokens)) {
    faults.push_back(
        {"length", fmt::format("{} tokens where {} to {} are allowed", *tokens, rules.tokens.low, rules.tokens.high)});
  }
  if (hold_out_ != nullptr) {
    if (const auto hit = hold_out_->overlap_of(messages)) {
      faults.push_back(
          {"holdout", fmt::format("what the user says is kept for tests, say something else: \"{}\"", hit->text)});
    }
  }
  return {};
}

Result<std::vector<Fault>> Validator::faults(const Category& category, const Json& record) const {
  const Json& messages = record["messages"];
  std::vector<Fault> faults = role_faults(messages, category.turns);
  // Without the right order nothing else can be said of it.
  if (!faults.empty()) return faults;
  for (const Json& message : messages) {
    if (message["role"] == "user") {
      NIBBLE_TRY(characters, encodings_.at(category.id).detect(text_of(message)));
      if (!characters.empty())
        faults.push_back(
            {"encoding", fmt::format("the user: \"{}\" ({})", characters[0].snippet, characters[0].detector)});
    }
    if (message["role"] != "assistant") continue;
    NIBBLE_TRY(own, message_faults(category, message));
    faults.insert(faults.end(), own.begin(), own.end());
  }
  NIBBLE_RETURN_IF_ERROR(turn_faults(category, messages, faults));
  NIBBLE_RETURN_IF_ERROR(set_wide_faults(category, record, faults));
  return faults;
}

}  // namespace nibble::synth
