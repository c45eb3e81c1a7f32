// Broken templates and odd input: an error or a text whose pieces cover it, never a crash, whatever the bytes.
#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/rng.h"
#include "text/chat_template.h"

namespace nibble::text {
namespace {

constexpr const char* kFragments[] = {
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "-",
    "+",
    "~",
    "|",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    "\n",
    "if ",
    "else",
    "elif x",
    "endif",
    "for m in messages",
    "endfor",
    "set x = ",
    "endset",
    "macro m(a)",
    "endmacro",
    "raw",
    "endraw",
    "is ",
    "not ",
    "in ",
    "and ",
    "or ",
    "none",
    "true",
    "messages",
    ".content",
    "loop.index",
    "[::-1]",
    "[-1]",
    "[1:]",
    "|tojson",
    "|trim",
    "|length",
    "|items",
    "|list",
    "|sort",
    "|map('upper')",
    "|join",
    ".split('a')",
    ".strip()",
    "** 9",
    "* 99999",
    "% 0",
    "// 0",
    "9223372036854775807",
    "1e308",
    "break",
    "continue",
    "generation",
    "endgeneration",
    "namespace(a=1)",
    "range(99)",
    "caller()",
    "call m()",
    "endcall",
    "filter upper",
    "endfilter",
    "\xc3",
    "\xe2\x82\xac",
    "\xf0\x9f\x98\x8a",
};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : rng_(seed) {}

  std::string mutate(std::string text) {
    for (uint32_t n = 1 + rng_.below(4); n > 0; --n) {
      const size_t at = rng_.below(static_cast<uint32_t>(text.size()) + 1);
      const size_t size = std::min<size_t>(rng_.below(12), text.size() - at);
      switch (rng_.below(5)) {
        case 0:
          text.erase(at, size);
          break;
        case 1:
          text.insert(at, kFragments[rng_.below(static_cast<uint32_t>(std::size(kFragments)))]);
          break;
        case 2:
          text.insert(at, text.substr(at, size));
          break;
        case 3:
          if (at < text.size()) text[at] = static_cast<char>(rng_.bits());
          break;
        default:
          text.replace(at, size, kFragments[rng_.below(static_cast<uint32_t>(std::size(kFragments)))]);
      }
    }
    return text;
  }

  uint32_t below(uint32_t n) { return rng_.below(n); }

  Json value(int depth) {
    switch (rng_.below(depth > 0 ? 9 : 6)) {
      case 0:
        return nullptr;
      case 1:
        return rng_.below(2) == 0;
      case 2:
        return static_cast<int64_t>(rng_.bits()) << rng_.below(32);
      case 3:
        return 1e308 * rng_.normal();
      case 4:
      case 5:
        return mutate("user assistant <think>\n\xe0\xb2\xac</think> <|im_end|>");
      case 6: {
        Json list = Json::array();
        for (uint32_t n = rng_.below(4); n > 0; --n) list.push_back(value(depth - 1));
        return list;
      }
      default: {
        constexpr const char* kKeys[] = {"role", "content", "tool_calls", "function", "name", "arguments", "items", ""};
        Json object = Json::object();
        for (uint32_t n = rng_.below(5); n > 0; --n) object[kKeys[rng_.below(std::size(kKeys))]] = value(depth - 1);
        return object;
      }
    }
  }

 private:
  Rng rng_;
};

constexpr RenderLimits kLimits = {.steps = 20'000, .output_bytes = 1 << 16, .cpu_ms = 1000};

void check(const Result<Rendered>& rendered) {
  if (!rendered.ok()) {
    EXPECT_FALSE(rendered.status().message().empty());
    return;
  }
  size_t at = 0;
  for (const Piece& piece : rendered->pieces) {
    ASSERT_EQ(piece.begin, at);
    ASSERT_GT(piece.end, at);
    at = piece.end;
  }
  ASSERT_EQ(at, rendered->text.size());
  for (const AssistantSpan& span : assistant_spans(*rendered)) {
    ASSERT_LE(span.begin, span.body);
    ASSERT_LE(span.body, span.end);
    ASSERT_LE(span.end, rendered->text.size());
  }
}

std::string voice_template() {
  auto text = read_file(NIBBLE_SOURCE_DIR "/models/tiny-voice/chat_template.jinja");
  EXPECT_TRUE(text.ok()) << text.status().text();
  return text.ok() ? *text : std::string();
}

// The sources of the language's golden cases, one after another.
std::vector<std::string> language_sources() {
  const auto text = read_file(NIBBLE_SOURCE_DIR "/tests/golden/jinja/cases.jsonl");
  EXPECT_TRUE(text.ok()) << text.status().text();
  std::vector<std::string> sources;
  for (size_t begin = 0; text.ok() && begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    const auto line = parse_json(std::string_view(*text).substr(begin, end - begin), "cases.jsonl");
    if (line.ok()) sources.push_back((*line)[0]);
    begin = end + 1;
  }
  return sources;
}

const Json kMessages = {{{"role", "system"}, {"content", "s"}},
                        {{"role", "user"}, {"content", "a b"}},
                        {{"role", "assistant"},
                         {"content", "x"},
                         {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", {{"k", 1}}}}}}}}}};

TEST(ChatTemplateFuzz, MutatedTemplates) {
  Mutator mutator(1);
  std::vector<std::string> sources = language_sources();
  const std::string voice = voice_template();
  int parsed = 0;
  for (int i = 0; i < 4000; ++i) {
    const bool whole = i % 4 == 0;
    const std::string source =
        mutator.mutate(whole ? voice : sources[mutator.below(static_cast<uint32_t>(sources.size()))]);
    const auto chat = jinja::Template::parse(source, "t");
    if (!chat.ok()) {
      EXPECT_TRUE(chat.status().message().starts_with("t: ")) << chat.status().message();
      continue;
    }
    ++parsed;
    chat->free_names();
    jinja::Variables variables;
    variables.emplace_back("messages", jinja::from_json(kMessages, {}));
    const auto text = chat->render(std::move(variables), kLimits);
    EXPECT_TRUE(!text.ok() || text->empty() || text->runs().back().end == text->size());
  }
  EXPECT_GT(parsed, 500);  // the mutations do not only make syntax errors
}

TEST(ChatTemplateFuzz, MutatedChatTemplatesAreProbedAndRendered) {
  Mutator mutator(2);
  const std::string voice = voice_template();
  for (int i = 0; i < 300; ++i) {
    const auto chat = ChatTemplate::parse(mutator.mutate(voice), "t");
    if (chat.ok()) check(chat->render(kMessages, nullptr, {.limits = kLimits}));
  }
}

TEST(ChatTemplateFuzz, OddMessagesAndTools) {
  Mutator mutator(3);
  const auto chat = ChatTemplate::parse(voice_template(), "t");
  ASSERT_TRUE(chat.ok());
  for (int i = 0; i < 3000; ++i) {
    Json messages = Json::array();
    for (uint32_t n = mutator.below(5); n > 0; --n) messages.push_back(mutator.value(4));
    check(
        chat->render(messages, mutator.below(2) == 0 ? Json() : Json::array({mutator.value(5)}), {.limits = kLimits}));
  }
}

// Messages of the right shape, so that the template's branches are reached.
TEST(ChatTemplateFuzz, PlausibleMessages) {
  Mutator mutator(4);
  const auto chat = ChatTemplate::parse(voice_template(), "t");
  ASSERT_TRUE(chat.ok());
  constexpr const char* kRoles[] = {"system", "user", "assistant", "tool"};
  int rendered = 0;
  for (int i = 0; i < 1500; ++i) {
    Json messages = Json::array();
    for (uint32_t n = 1 + mutator.below(5); n > 0; --n) {
      messages.push_back({{"role", kRoles[mutator.below(4)]},
                          {"content", mutator.mutate("<|im_start|>assistant\n\xe0\xb2\xac<|im_end|>")}});
      if (mutator.below(3) == 0)
        messages.back()["tool_calls"] = Json::array({{{"name", "f"}, {"arguments", mutator.value(3)}}});
    }
    const auto result = chat->render(messages, nullptr, {.limits = kLimits});
    rendered += result.ok();
    check(result);
  }
  EXPECT_GT(rendered, 700);
}

}  // namespace
}  // namespace nibble::text
