#include "gate/judge.h"

#include "base/check.h"
#include "text/case_fold.h"
#include "text/detect.h"

namespace nibble::gate {
namespace {

Verdict fail(std::string reason) {
  return {Verdict::Kind::fail, std::move(reason)};
}

// One spelling for what servers write with other spaces and escapes; text that is not JSON stands as it is.
std::string compact(const std::string& arguments) {
  const auto json = parse_json(arguments, "arguments");
  return json.ok() ? json->dump() : arguments;
}

Verdict judge_call(const Turn& turn, const ToolCall& call, size_t calls_before) {
  if (calls_before >= turn.tool_results.size()) {
    return fail(fmt::format("expected {} calls, got one more: {}", turn.tool_results.size(), call.name));
  }
  if (call.name != turn.expect.tool) {
    return fail(fmt::format("expected a call of {}, got {}", turn.expect.tool, call.name));
  }
  const std::string arguments = compact(call.arguments);
  for (const std::string& argument : turn.expect.args) {
    if (arguments.find(argument) == std::string::npos) {
      return fail(fmt::format("expected \"{}\" in the arguments, got {}", argument, arguments));
    }
  }
  return {Verdict::Kind::feed_result, {}};
}

Verdict judge_text(const Turn& turn, const std::string& content, size_t calls_before) {
  if (calls_before != turn.tool_results.size()) {
    return fail(fmt::format("expected {} calls of {} before the text, got {}", turn.tool_results.size(),
                            turn.expect.tool, calls_before));
  }
  const std::string folded = text::case_fold(content);
  for (const std::string& piece : turn.expect.must) {
    if (folded.find(text::case_fold(piece)) == std::string::npos) {
      return fail(fmt::format("expected \"{}\" in the reply, got none", piece));
    }
  }
  return {Verdict::Kind::pass, {}};
}

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

Verdict judge_turn(const Turn& turn, std::span<const Reply> replies) {
  NIBBLE_CHECK(!replies.empty());
  const Reply& last = replies.back();
  const size_t calls_before = replies.size() - 1;
  return last.calls.empty() ? judge_text(turn, last.content, calls_before)
                            : judge_call(turn, last.calls.front(), calls_before);
}

Result<Manners> manners_of(const Reply& reply) {
  NIBBLE_TRY(think, text::detect_think(reply.content));
  NIBBLE_TRY(markdown, text::detect_markdown(reply.content));
  NIBBLE_TRY(confirm, text::detect_confirm(reply.content));
  return Manners{
      .thinks = !is_blank(reply.reasoning) || !think.empty(), .markdown = !markdown.empty(), .asks = !confirm.empty()};
}

}  // namespace nibble::gate
