// Properties that hold for every text: random fragments of tags, JSON and words, random bytes, and very long texts.
#include <fmt/format.h>

#include <ctime>

#include "text/parser_test_support.h"

namespace nibble::text {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 4000;
constexpr size_t kLongText = size_t{1} << 18;
#else
constexpr int kRounds = 40000;
constexpr size_t kLongText = size_t{1} << 20;
#endif

// Pieces of model output. "$" becomes a word that occurs once, so that lost text is seen.
const std::vector<std::string>& fragments() {
  static const std::vector<std::string> all = {
      "<think>",
      "</think>",
      "<tool_call>",
      "</tool_call>",
      "<function=",
      "</function>",
      "<parameter=",
      "</parameter>",
      "<function=get_weather>",
      "<parameter=city>",
      "<parameter=days>",
      "<parameter=note>\n",
      "<parameter=x$>",
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {",
      "{\"name\": \"f$\"",
      ", \"arguments\": ",
      "{\"name\": \"f$\", \"arguments\": {\"a$\": ",
      "\"city\": ",
      "\"s$\"",
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      "\"",
      "\\",
      "\\n",
      "\\ud83d",
      "\\ude00",
      "1",
      "-",
      "2.5",
      "e3",
      "tru",
      "true",
      "null",
      "\n",
      "\n\n",
      " ",
      "<",
      ">",
      "/",
      "$",
      "$ ",
      "ಬೆಂ",
      "🌧️",
      "<tool",
      "</",
      "<fun",
      "{}",
      "}}",
      "'",
      "=",
  };
  return all;
}

std::string random_output(Rng& rng, std::vector<std::string>& words) {
  std::string text;
  for (uint32_t n = 1 + rng.below(14); n > 0; --n) {
    std::string piece = fragments()[rng.below(static_cast<uint32_t>(fragments().size()))];
    if (const size_t at = piece.find('$'); at != piece.npos) {
      words.push_back(fmt::format("w{}w", words.size()));
      piece.replace(at, 1, words.back());
    }
    text += piece;
  }
  return text;
}

ParserOptions random_options(Rng& rng) {
  static const Json tools = weather_tools();
  ParserOptions options;
  if (rng.below(8) > 0) options.tools = tools;
  options.reasoning_open = rng.below(3) == 0;
  if (rng.below(6) == 0) options.dialect = static_cast<ToolDialect>(rng.below(4));
  return options;
}

bool calls_on(const ParserOptions& options) {
  return !options.tools.is_null() && options.dialect != ToolDialect::none;
}

std::string without(std::string text, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) {
    for (size_t at; (at = text.find(part)) != text.npos;) text.erase(at, part.size());
  }
  text.erase(std::remove_if(text.begin(), text.end(), is_blank), text.end());
  return text;
}

void expect_rules(const ParserOptions& options, const std::string& output, const std::vector<std::string>& words,
                  bool cut, const Replay& run) {
  std::string everything = run.message.content + run.message.reasoning;
  for (const ParsedCall& call : run.message.calls) {
    EXPECT_TRUE(Json::accept(call.arguments)) << call.arguments;
    EXPECT_EQ(call.arguments.front(), '{') << call.arguments;
    EXPECT_FALSE(call.name.empty());
    everything += call.name + call.arguments;
  }
  if (calls_on(options)) {
    EXPECT_EQ(run.message.content.find("<tool_call>"), std::string::npos);
    EXPECT_EQ(run.message.content.find("</tool_call>"), std::string::npos);
  } else {
    EXPECT_TRUE(run.message.calls.empty());
    EXPECT_TRUE(cut || run.discarded == 0);
  }
  if (run.discarded == 0) {
    for (const std::string& word : words)
      EXPECT_NE(everything.find(word), std::string::npos) << word << " in " << output;
  }
}

TEST(ChatParserProperties, AnyChunkingOfRandomFragmentsGivesOneWholeMessage) {
  Rng rng(45);
  int calls = 0, healed = 0, spoken = 0;
  for (int round = 0; round < kRounds && !testing::Test::HasFailure(); ++round) {
    std::vector<std::string> words;
    const std::string output = random_output(rng, words);
    const ParserOptions options = random_options(rng);
    const bool cut = rng.below(2) == 0;
    SCOPED_TRACE(json_string(output) + " round " + std::to_string(round));
    const Replay run = replay(options, whole(output), cut);
    expect_rules(options, output, words, cut, run);
    for (const uint32_t longest : {1u, 3u, 20u}) {
      const Replay other = replay(options, random_chunks(output, rng, longest), cut);
      EXPECT_EQ(other.message, run.message);
      EXPECT_EQ(other.discarded, run.discarded);
    }
    EXPECT_EQ(replay(options, per_byte(output), cut, false).message, run.message);
    spoken += !run.message.content.empty();
    calls += static_cast<int>(run.message.calls.size());
    for (const ParsedCall& call : run.message.calls) healed += call.healed;
  }
  // The fragments reach what they are meant to reach.
  EXPECT_GT(calls, kRounds / 10);
  EXPECT_GT(healed, kRounds / 20);
  EXPECT_GT(calls - healed, kRounds / 40);
  EXPECT_GT(spoken, kRounds / 4);
}

TEST(ChatParserProperties, WithoutToolsNoTextIsLostOrMoved) {
  Rng rng(46);
  for (int round = 0; round < kRounds / 4 && !testing::Test::HasFailure(); ++round) {
    std::vector<std::string> words;
    const std::string output = random_output(rng, words);
    ParserOptions options;
    options.reasoning_open = rng.below(2) == 0;
    ChatParser parser(options);
    std::vector<ParseEvent> events;
    parser.feed(output, events);
    parser.finish(false, events);
    std::string said;
    for (const ParseEvent& event : events) said += event.text;
    EXPECT_EQ(without(said, {"<think>", "</think>"}), without(output, {"<think>", "</think>"})) << output;
  }
}

TEST(ChatParserProperties, AnyBytesAreRead) {
  Rng rng(47);
  for (int round = 0; round < kRounds / 8; ++round) {
    std::vector<std::string> words;
    std::string output = random_output(rng, words);
    for (uint32_t n = rng.below(6); n > 0; --n)
      output[rng.below(static_cast<uint32_t>(output.size()))] = static_cast<char>(rng.below(256));
    const ParserOptions options = random_options(rng);
    const Replay run = replay(options, whole(output), false, false);
    EXPECT_EQ(replay(options, per_byte(output), false, false).message, run.message);
  }
}

// Time must grow with the text and not with its square: four times the text may take at most ten times as long, where a
// quadratic parser takes sixteen. The least processor time of three runs counts, and at least a millisecond.
TEST(ChatParserProperties, TimeIsLinear) {
  const std::vector<std::string> repeated = {
      "<parameter=",
      "<think",
      "<think>",
      "<tool_call>",
      "<tool_call>{\"",
      "<function=",
      "<function=a>",
      "\n",
      "<",
      "<function=f><parameter=",
      "{\"name\": \"a\"}",
      "</think>\n<think>\n",
      "a b ",
  };
  const std::vector<std::string> prefixes = {"",
                                             "<function=f>",
                                             "<function=f><parameter=k>",
                                             "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"",
                                             "<tool_call>",
                                             "<tool_call>{\"a\": \""};
  ParserOptions options;
  options.tools = weather_tools();
  const auto best_seconds = [&](const std::string& text) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const std::clock_t start = std::clock();
      parse_reply(text, options);
      best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    return std::max(best, 1e-3);
  };
  for (const std::string& prefix : prefixes) {
    for (const std::string& piece : repeated) {
      std::string text = prefix;
      const size_t size = prefix.empty() ? kLongText : kLongText / 4;
      while (text.size() < size / 4) text += piece;
      const double small = best_seconds(text);
      while (text.size() < size) text += piece;
      const double large = best_seconds(text);
      EXPECT_LT(large, 10 * small) << prefix << " " << piece << ": " << small << " s, then " << large << " s";
    }
  }
}

}  // namespace
}  // namespace nibble::text
