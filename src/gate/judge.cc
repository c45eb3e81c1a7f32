#include "gate/judge.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "gate/chat_stream.h"
#include "gate/decimal.h"
#include "text/case_fold.h"
#include "text/detect.h"
#include "text/novel.h"
#include "text/number_words.h"
#include "text/sentences.h"
#include "text/utf8.h"
#include "text/vocative.h"
#include "text/words.h"

namespace nibble::gate {
namespace {

constexpr size_t kShownBytes = 160;

// A text as reports quote it: one line, cut where a reader has seen enough.
std::string shown(std::string_view text) {
  std::string out(text::clipped(text, kShownBytes));
  std::replace(out.begin(), out.end(), '\n', ' ');
  return "\"" + out + (out.size() < text.size() ? "…\"" : "\"");
}

std::string shown(const TextPattern& pattern) {
  return pattern.regex ? fmt::format("/{}/", pattern.text) : fmt::format("\"{}\"", pattern.text);
}

std::string shown(const std::vector<TextPattern>& patterns) {
  std::string out;
  for (const TextPattern& pattern : patterns) out += (out.empty() ? "" : ", ") + shown(pattern);
  return out;
}

// One turn under judgement; every check adds at most a failure of its own.
class Judgement {
 public:
  Judgement(const Turn& turn, const PlayedTurn& played, const TurnContext& context)
      : expect_(turn.expect), played_(played), context_(context), reply_(played.last()->said.reply.content) {
    for (const PlayedMessage& message : played.messages) {
      const std::vector<ToolCall>& calls = message.said.reply.calls;
      calls_.insert(calls_.end(), calls.begin(), calls.end());
    }
  }

  Result<std::vector<Failure>> run() {
    NIBBLE_RETURN_IF_ERROR(check_calls());
    NIBBLE_RETURN_IF_ERROR(check_text());
    NIBBLE_RETURN_IF_ERROR(check_manner());
    check_end();
    return std::move(failures_);
  }

 private:
  void fail(std::string what, std::string detail) { failures_.push_back({std::move(what), std::move(detail)}); }

  Status check_calls() {
    if (expect_.call) {
      NIBBLE_TRY(mismatch, expect_.call->mismatch(calls_));
      if (mismatch) fail(fmt::format("call.{}", gate::name(mismatch->fault)), mismatch->message);
    }
    if (expect_.steps) check_steps(*expect_.steps);
    if (expect_.calls_in_order) {
      std::vector<std::string> names;
      for (const ToolCall& call : calls_) names.push_back(call.name);
      if (names != *expect_.calls_in_order) {
        fail("calls_in_order", fmt::format("expected {}, got {}", fmt::join(*expect_.calls_in_order, ", "),
                                           names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
      }
    }
    if (expect_.direct) {
      const Reply& first = played_.messages.front().said.reply;
      if (first.calls.empty()) {
        fail("direct", fmt::format("expected a call in the first message, got {}", shown(first.content)));
      } else {
        NIBBLE_TRY(asks, text::detect_confirm(first.content));
        if (!asks.empty())
          fail("direct", fmt::format("expected no question before acting, got \"{}\"", asks[0].snippet));
      }
    }
    return {};
  }

  void check_steps(const CallSteps& steps) {
    size_t made = 0;
    for (const PlayedMessage& message : played_.messages) {
      if (message.said.reply.calls.empty()) continue;
      const ToolCall& call = message.said.reply.calls.front();
      ++made;
      if (made > steps.count) break;
      if (call.name != steps.tool) {
        return fail("call.name",
                    fmt::format("expected a call of {}, got {} {}", steps.tool, call.name, call.arguments));
      }
      const auto json = parse_json(call.arguments, "arguments");
      const std::string arguments = json.ok() ? dump(*json) : call.arguments;
      for (const std::string& word : steps.words) {
        if (arguments.find(word) != std::string::npos) continue;
        return fail("call.value", fmt::format("expected {} in the arguments, got {}", word, arguments));
      }
    }
    if (made == steps.count) return;
    if (made == 0) return fail("call.trigger", fmt::format("expected a call of {}, got {}", steps.tool, shown(reply_)));
    fail("call.count", fmt::format("expected {} calls, got {}", steps.count, made));
  }

  // Which of the patterns the reply holds.
  Result<std::vector<const TextPattern*>> found(const std::vector<TextPattern>& patterns) {
    std::vector<const TextPattern*> hits;
    for (const TextPattern& pattern : patterns) {
      NIBBLE_TRY(hit, pattern.in(reply_));
      if (hit) hits.push_back(&pattern);
    }
    return hits;
  }

  Status check_text() {
    for (const TextPattern& pattern : expect_.must) {
      NIBBLE_TRY(hit, pattern.in(reply_));
      if (!hit) fail("must", fmt::format("expected {}, got {}", shown(pattern), shown(reply_)));
    }
    const std::pair<const char*, const std::vector<TextPattern>*> alternatives[] = {
        {"must_any", &expect_.must_any}, {"recall", expect_.recall ? &expect_.recall->must_any : nullptr}};
    for (const auto& [what, patterns] : alternatives) {
      if (patterns == nullptr || patterns->empty()) continue;
      NIBBLE_TRY(hits, found(*patterns));
      if (hits.empty()) fail(what, fmt::format("expected one of {}, got {}", shown(*patterns), shown(reply_)));
    }
    NIBBLE_TRY(forbidden, found(expect_.must_not));
    if (!forbidden.empty()) {
      fail("must_not", fmt::format("expected no {}, got {}", shown(*forbidden[0]), shown(reply_)));
    }
    if (expect_.equals && *expect_.equals != reply_) {
      fail("equals", fmt::format("expected {}, got {}", shown(*expect_.equals), shown(reply_)));
    }
    if (expect_.equals_number) {
      const std::optional<double> number = last_number(reply_);
      const double want = *expect_.equals_number;
      if (!number || std::abs(*number - want) > 1e-9 * std::max(1.0, std::abs(want))) {
        fail("equals_number",
             fmt::format("expected {}, got {}", want, number ? fmt::format("{}", *number) : shown(reply_)));
      }
    }
    if (!expect_.last_number.empty()) {
      const std::optional<std::string> number = last_decimal(reply_);
      if (number != expect_.last_number) {
        fail("last_number", fmt::format("expected {}, got {}", expect_.last_number, number ? *number : shown(reply_)));
      }
    }
    NIBBLE_RETURN_IF_ERROR(check_instructions());
    return check_schema();
  }

  Status check_instructions() {
    for (const Instruction& instruction : expect_.instructions) {
      NIBBLE_TRY(strict, instruction.strict(reply_));
      if (strict) continue;
      NIBBLE_TRY(loose, instruction.loose(reply_));
      fail(loose ? kInstructionLoose : kInstruction,
           fmt::format("expected {}, got {}", instruction.describe(), shown(reply_)));
    }
    return {};
  }

  Status check_schema() {
    if (!expect_.json_schema) return {};
    const auto json = parse_json(reply_, "reply");
    if (!json.ok()) {
      fail("json_schema", fmt::format("expected JSON, got {}", shown(reply_)));
      return {};
    }
    NIBBLE_TRY(violation, expect_.json_schema->violation(*json));
    if (violation) fail("json_schema", *violation);
    return {};
  }

  // What is more than a pattern was looked for when the turn was played (gate/anomalies.h).
  void check_findings(const std::string& detector) {
    const auto check = [&](const std::vector<Anomaly>& anomalies) {
      for (const Anomaly& anomaly : anomalies) {
        if (anomaly.id != detector && anomaly.family() != detector) continue;
        fail("detectors", fmt::format("expected no {}, got \"{}\"", anomaly.id, anomaly.snippet));
        return;
      }
    };
    check(played_.anomalies);
    for (const PlayedMessage& message : played_.messages) check(message.anomalies);
  }

  Status check_manner() {
    for (const std::string& detector : expect_.detectors) {
      if (!text::detector_family(detector)) {
        check_findings(detector);
        continue;
      }
      NIBBLE_TRY(hits, text::detect_named(detector, reply_));
      if (!hits.empty())
        fail("detectors", fmt::format("expected no {}, got \"{}\"", hits[0].detector, hits[0].snippet));
    }
    if (expect_.max_sentences) {
      const auto count = text::sentences(reply_).size();
      if (count > static_cast<size_t>(*expect_.max_sentences)) {
        fail("max_sentences", fmt::format("expected at most {}, got {}", *expect_.max_sentences, count));
      }
    }
    if (expect_.max_words) {
      const size_t count = text::words(reply_).size();
      if (count > static_cast<size_t>(*expect_.max_words)) {
        fail("max_words", fmt::format("expected at most {}, got {}", *expect_.max_words, count));
      }
    }
    if (expect_.refuse) {
      NIBBLE_TRY(refusals, text::detect_refuse(reply_));
      if (refusals.empty()) fail("refuse", fmt::format("expected that nothing is known, got {}", shown(reply_)));
    }
    if (expect_.novel) {
      const std::vector<std::string> facts = text::novel(reply_, context_.said);
      if (facts.size() > static_cast<size_t>(*expect_.novel)) {
        fail("novel", fmt::format("expected nothing new, got {}", fmt::join(facts, ", ")));
      }
    }
    if (!expect_.name.empty()) NIBBLE_RETURN_IF_ERROR(check_name());
    return {};
  }

  Status check_name() {
    if (text::case_fold(reply_).find(text::case_fold(expect_.name)) == std::string::npos) {
      fail("name", fmt::format("expected {}, got {}", expect_.name, shown(reply_)));
      return {};
    }
    std::vector<std::string> allowed = context_.names;
    allowed.push_back(expect_.name);
    NIBBLE_TRY(wrong, text::wrong_names(reply_, allowed));
    if (!wrong.empty()) fail("name", fmt::format("expected no other name than {}, got {}", expect_.name, wrong[0]));
    return {};
  }

  void check_end() {
    const StreamedReply& last = played_.last()->said;
    if (!expect_.finish.empty() && last.finish != expect_.finish) {
      fail("finish", fmt::format("expected {}, got {}", expect_.finish, last.finish));
    }
    const double first_ms = played_.messages.front().said.times.first_answer_ms;
    if (expect_.within_ms > 0 && (first_ms < 0 || first_ms > expect_.within_ms)) {
      fail("within_ms", fmt::format("expected {} ms, got {:.0f}", expect_.within_ms, first_ms));
    }
  }

  const Expectation& expect_;
  const PlayedTurn& played_;
  const TurnContext& context_;
  const std::string& reply_;
  std::vector<ToolCall> calls_;
  std::vector<Failure> failures_;
};

}  // namespace

std::string context_text(const Json& messages) {
  std::string text;
  for (const Json& message : messages) {
    const Json& content = member(message, "content");
    if (content.is_string()) text += content.get_ref<const std::string&>() + "\n";
    for (const Json& call : member(message, "tool_calls")) text += dump(member(call, "function")) + "\n";
  }
  return text;
}

Result<std::vector<Failure>> judge_turn(const Turn& turn, const PlayedTurn& played, const TurnContext& context) {
  if (!played.failures.empty() || played.messages.empty()) return played.failures;
  return Judgement(turn, played, context).run();
}

std::optional<double> last_number(std::string_view text) {
  std::optional<double> last;
  int64_t tens = 0;  // of "twenty" while "five" may follow
  for (size_t i = 0; i < text.size();) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (digit(i)) {
      std::string digits;
      const bool negative = i > 0 && text[i - 1] == '-' && (i == 1 || text[i - 2] == ' ');
      size_t end = i;
      for (; digit(end) || ((text.substr(end, 1) == "," || text.substr(end, 1) == ".") && digit(end + 1)); ++end) {
        if (text[end] != ',') digits += text[end];
      }
      double value = 0;
      const auto [at, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error == std::errc() && at == digits.data() + digits.size()) last = negative ? -value : value;
      tens = 0;
      i = end;
      continue;
    }
    size_t end = i;
    std::string word;
    for (; end < text.size() && std::isalpha(static_cast<unsigned char>(text[end])) != 0; ++end) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(text[end])));
    }
    if (end == i) {
      if (text[i] != ' ' && text[i] != '-') tens = 0;
      ++i;
      continue;
    }
    const std::optional<int64_t> value = text::number_word(word);
    if (value && *value <= 100) {
      last = static_cast<double>(*value < 10 ? tens + *value : *value);
      tens = *value >= 20 && *value < 100 ? *value : 0;
    } else {
      tens = 0;
    }
    i = end;
  }
  return last;
}

}  // namespace nibble::gate
