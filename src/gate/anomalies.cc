#include "gate/anomalies.h"

#include <algorithm>
#include <optional>
#include <set>

#include "gate/chat_stream.h"
#include "text/case_fold.h"
#include "text/detect.h"
#include "text/prompt_leak.h"
#include "text/repetition.h"
#include "text/utf8.h"
#include "text/vocative.h"
#include "text/words.h"

namespace nibble::gate {
namespace {

constexpr size_t kSnippetBytes = 200;

// The families that are no patterns.
constexpr std::string_view kFamilies[] = {
    "encoding",    "repetition",  "prompt_leak", "wrong_name", "hidden_thinking", "stream_order",
    "healed_call", "broken_call", "swallowed",   "runaway",    "truncated",       "slow",
    "http",        "tool_loop",   "empty",       "stuck",      "unmatched_tool"};

void add(std::vector<Anomaly>& out, const std::vector<text::Detection>& hits, bool warning = false) {
  for (const text::Detection& hit : hits) {
    out.push_back(
        {hit.detector, hit.snippet, warning, {}, static_cast<int64_t>(hit.begin), static_cast<int64_t>(hit.end)});
  }
}

bool blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

bool has_family(const std::vector<Anomaly>& anomalies, std::string_view family) {
  return std::any_of(anomalies.begin(), anomalies.end(), [&](const Anomaly& a) { return a.family() == family; });
}

// What was counted or announced and did not come. No token is shorter than a byte, so a reply of fewer bytes than
// tokens has lost some; the allowance is for a call's own markup and for what is trimmed around the text.
std::optional<std::string> swallowed(const StreamedReply& said) {
  constexpr size_t kCallMarkup = 64, kTrimmed = 64;
  const Reply& reply = said.reply;
  if (said.finish == "tool_calls" && reply.calls.empty()) return "finish_reason tool_calls, and no call";
  if (said.interrupted || said.usage.completion_tokens < 0) return std::nullopt;
  size_t bytes = reply.content.size() + reply.reasoning.size() + kTrimmed;
  for (const ToolCall& call : reply.calls) bytes += call.name.size() + 2 * call.arguments.size() + kCallMarkup;
  const int64_t hidden = reply.reasoning.empty() ? std::max<int64_t>(0, said.usage.reasoning_tokens) : 0;
  const int64_t tokens = said.usage.completion_tokens - hidden;
  if (tokens <= static_cast<int64_t>(bytes)) return std::nullopt;
  return fmt::format("{} tokens were counted, {} bytes came", tokens, reply.content.size());
}

void add_lost(const StreamedReply& said, std::vector<Anomaly>& out) {
  for (size_t i = 0; i < said.reply.calls.size(); ++i) {
    const ToolCall& call = said.reply.calls[i];
    const std::string shown = call.name + " " + call.arguments;
    const bool healed = std::find(said.healed.begin(), said.healed.end(), i) != said.healed.end();
    if (healed) out.push_back({"healed_call", shown});
    const auto arguments =
        blank(call.arguments) ? Result<Json>(Json::object()) : parse_json(call.arguments, "arguments");
    if (!healed && !(arguments.ok() && arguments->is_object())) out.push_back({"broken_call", shown});
  }
  if (auto lost = swallowed(said)) out.push_back({"swallowed", std::move(*lost)});
}

// The same call, however its arguments are spaced or ordered.
std::string canonical(const ToolCall& call) {
  const auto json = parse_json(call.arguments, "arguments");
  return call.name + " " +
         (json.ok() ? nlohmann::json(*json).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                    : call.arguments);
}

}  // namespace

bool is_detector(std::string_view name) {
  const std::string_view family = name.substr(0, name.find('.'));
  return text::detector_family(name) ||
         std::find(std::begin(kFamilies), std::end(kFamilies), family) != std::end(kFamilies);
}

Result<Detectors> Detectors::make(const Recipe& recipe, bool thinking_off, bool foreign) {
  NIBBLE_TRY(encoding, text::EncodingCheck::for_scripts(recipe.scripts));
  std::vector<std::string> names = recipe.context_words;
  for (const auto& item : recipe.persona) names.push_back(item.second);
  return Detectors(std::move(encoding), std::move(names), thinking_off, foreign);
}

Result<std::vector<Anomaly>> Detectors::of_message(const PlayedMessage& message, const std::string& system,
                                                   const std::string& context) const {
  const StreamedReply& said = message.said;
  const std::string& content = said.reply.content;
  std::vector<Anomaly> out;
  using Family = text::DetectorFamily;
  for (const Family family : {Family::think, Family::md, Family::tag, Family::role, Family::confirm}) {
    NIBBLE_TRY(hits, text::detect(family, content));
    add(out, hits);
  }
  NIBBLE_TRY(characters, encoding_.detect(content));
  add(out, characters);
  NIBBLE_TRY(circles, text::detect_repetition(content));
  add(out, circles);
  NIBBLE_TRY(leaks, text::detect_prompt_leak(content, system));
  add(out, leaks);
  if (!names_.empty()) {
    NIBBLE_TRY(names, text::wrong_names(content, names_));
    const std::string known = text::case_fold(context);
    for (std::string& name : names) {
      if (known.find(text::case_fold(name)) == std::string::npos) out.push_back({"wrong_name", std::move(name)});
    }
  }
  if (thinking_off_ && (!blank(said.reply.reasoning) || said.usage.reasoning_tokens > 0)) {
    out.push_back({"hidden_thinking", std::string(text::clipped(said.reply.reasoning, kSnippetBytes))});
  }
  for (const Family family : {Family::emoji, Family::url}) {
    NIBBLE_TRY(hits, text::detect(family, content));
    add(out, hits, true);
  }
  add_lost(said, out);
  if (said.finish == "length") {
    out.push_back({"truncated", {}, true});
    const size_t words = text::words(content).size();
    if (words >= kRunawayWords && !has_family(out, "repetition")) {
      out.push_back({"runaway", fmt::format("{} words and no end", words)});
    }
  }
  if (said.times.first_answer_ms > kSlowMs) {
    out.push_back({"slow", fmt::format("{:.0f} ms to the first token", said.times.first_answer_ms), true});
  }
  for (const std::string& rule : said.disorder) out.push_back({"stream_order", rule, foreign_});
  return out;
}

Result<std::vector<Anomaly>> Detectors::of_turn(const PlayedTurn& turn, const PlayedTurn* before) const {
  std::vector<Anomaly> out;
  std::set<std::string> seen;
  size_t calls = 0, rounds = 0;
  bool looped = false;
  for (const PlayedMessage& message : turn.messages) {
    rounds += message.said.reply.calls.empty() ? 0 : 1;
    for (const ToolCall& call : message.said.reply.calls) {
      ++calls;
      if (!seen.insert(canonical(call)).second && !looped) {
        out.push_back({"tool_loop", call.name + " " + call.arguments});
        looped = true;
      }
    }
  }
  if (rounds > kMaxRounds && !looped) out.push_back({"tool_loop", fmt::format("{} rounds of calls", rounds)});
  const PlayedMessage* last = turn.last();
  if (last == nullptr || last->said.interrupted) return out;
  const Reply& reply = last->said.reply;
  NIBBLE_TRY(claims, text::detect_phantom(reply.content, calls));
  NIBBLE_TRY(questions, text::detect_confirm(reply.content));
  // "Shall I set it?" claims nothing.
  std::erase_if(claims, [&questions = questions](const text::Detection& claim) {
    return std::any_of(questions.begin(), questions.end(), [&](const text::Detection& question) {
      return question.begin < claim.end && claim.begin < question.end;
    });
  });
  add(out, claims);
  if (reply.calls.empty() && !text::speakable(reply.content) && !has_family(last->anomalies, "swallowed")) {
    out.push_back({"empty", {}});
  }
  // "Done." twice is right after two orders.
  if (calls == 0 && before != nullptr && before->last() != nullptr &&
      text::is_stuck(reply.content, before->last()->said.reply.content, turn.user, before->user)) {
    out.push_back({"stuck", std::string(text::clipped(reply.content, kSnippetBytes))});
  }
  return out;
}

}  // namespace nibble::gate
