// Any text: detectors neither crash nor run away, and say places that exist.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "text/detect.h"
#include "text/encoding_check.h"
#include "text/examined_text.h"
#include "text/novel.h"
#include "text/prompt_leak.h"
#include "text/repetition.h"
#include "text/sentences.h"
#include "text/utf8.h"
#include "text/vocative.h"
#include "text/words.h"

namespace nibble::text {
namespace {

constexpr const char* kDetectors[] = {"think",  "md",      "tag",   "role", "confirm",
                                      "refuse", "phantom", "emoji", "url",  "vocative"};

const std::vector<std::string>& golden_strings() {
  static const std::vector<std::string> strings = {"<think>\nHe wants rain.</think> It may rain.",
                                                   "Okay, so the user is asking about rain.",
                                                   "Hmm, let me analyze",
                                                   "**Bold** move.",
                                                   "# Title",
                                                   "- milk\n- eggs",
                                                   "1. milk\n2. eggs",
                                                   "Use `ls`.",
                                                   "See [here](http://x.y).",
                                                   "| a | b |\n|---|---|",
                                                   "It is *very* hot.",
                                                   "```\nfenced\n```",
                                                   "> quoted",
                                                   "a\n---\nb",
                                                   "Hello<br>there",
                                                   "\\boxed{4}",
                                                   "<tool_call>\n{",
                                                   R"(Sure {"name": "web_search", "arguments": {"q": "x"}})",
                                                   "Done<|im_end|>",
                                                   "Paris.\nUser: and Spain?",
                                                   "Shall I search the web for that?",
                                                   "I can look it up if you'd like.",
                                                   "please confirm and I'll",
                                                   "I do not remember anything Arun said.",
                                                   "You haven’t told me that yet.",
                                                   "I've saved that note.",
                                                   "Timer set.",
                                                   "Nice 😀 👍🏽",
                                                   "www.x.y",
                                                   "Hello, Rajesh!",
                                                   ", Élodie.",
                                                   "ನಮಸ್ಕಾರ। ",
                                                   "ok ok ok ok ok ",
                                                   "at 1,500 on Friday",
                                                   "e\u0301",
                                                   "\u2019",
                                                   "你好。",
                                                   "\xff",
                                                   "\xe2\x80",
                                                   " ",
                                                   "\n",
                                                   "   \n"};
  return strings;
}

bool is_border(std::string_view text, size_t at) {
  return at == text.size() || (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) != 0x80);
}

// Hits lie in the text as it is or in that without Markdown.
void expect_places(const std::vector<Detection>& hits, const std::string& visible, const std::string& words) {
  for (const Detection& hit : hits) {
    const auto stands_in = [&](const std::string& text) {
      return hit.begin <= hit.end && is_border(text, hit.begin) && is_border(text, hit.end) &&
             text.substr(hit.begin, hit.end - hit.begin) == hit.snippet;
    };
    EXPECT_TRUE(stands_in(visible) || stands_in(words)) << hit.detector << " in " << visible;
    EXPECT_FALSE(hit.snippet.empty());
  }
}

void examine(const std::string& text, const EncodingCheck& encoding) {
  const std::string context = golden_strings().front();
  (void)novel(text, context);
  (void)novel(context, text);
  (void)sentences(text);
  (void)words(text);
  (void)speakable(text);
  (void)is_stuck(text, context, text, context);

  const auto visible = examined_text(text), plain = examined_words(text);
  if (!valid_utf8(text)) {
    EXPECT_EQ(visible.status().code(), Code::invalid_argument);
    EXPECT_EQ(plain.status().code(), Code::invalid_argument);
    for (const char* name : kDetectors) EXPECT_EQ(detect_named(name, text).status().code(), Code::invalid_argument);
    return;
  }
  ASSERT_TRUE(visible.ok() && plain.ok());
  for (const char* name : kDetectors) {
    const auto hits = detect_named(name, text);
    ASSERT_TRUE(hits.ok()) << hits.status().text();
    expect_places(*hits, *visible, *plain);
  }
  for (const auto& hits : {detect_repetition(text), detect_prompt_leak(text, context), encoding.detect(text)}) {
    ASSERT_TRUE(hits.ok()) << hits.status().text();
    expect_places(*hits, *visible, *plain);
  }
}

EncodingCheck encoding_check() {
  auto check = EncodingCheck::for_scripts();
  EXPECT_TRUE(check.ok());
  return std::move(check).value();
}

TEST(DetectFuzz, RandomBytes) {
  const EncodingCheck encoding = encoding_check();
  Rng rng(11);
  for (int round = 0; round < 800; ++round) {
    std::string text;
    for (uint32_t n = rng.below(80); n > 0; --n) text += static_cast<char>(rng.below(256));
    examine(round % 2 == 0 ? text : sanitize_utf8(text), encoding);
  }
}

TEST(DetectFuzz, SplicesOfGoldenStrings) {
  const EncodingCheck encoding = encoding_check();
  const auto& pieces = golden_strings();
  Rng rng(12);
  for (int round = 0; round < 800; ++round) {
    std::string text;
    for (uint32_t n = 1 + rng.below(6); n > 0; --n) {
      const std::string& piece = pieces[rng.below(static_cast<uint32_t>(pieces.size()))];
      const size_t begin = rng.below(2) == 0 ? 0 : rng.below(static_cast<uint32_t>(piece.size()));
      text += piece.substr(begin, 1 + rng.below(static_cast<uint32_t>(piece.size())));
    }
    examine(round % 3 == 0 ? text : sanitize_utf8(text), encoding);
  }
}

// Were one of them quadratic, this would not end within the time of a test.
TEST(DetectFuzz, LinearInLongTexts) {
  const EncodingCheck encoding = encoding_check();
  for (const char* piece : {"*", "<think", "((((", "ok ", "\xff"}) {
    std::string text;
    while (text.size() < 1 << 20) text += piece;
    for (const char* name : kDetectors) {
      const auto hits = detect_named(name, text);
      EXPECT_EQ(hits.ok(), valid_utf8(text)) << name << " " << piece;
    }
    EXPECT_EQ(detect_repetition(text).ok(), valid_utf8(text));
    EXPECT_EQ(detect_prompt_leak(text, text).ok(), valid_utf8(text));
    EXPECT_EQ(encoding.detect(text).ok(), valid_utf8(text));
    EXPECT_TRUE(novel(text, "").size() <= 1);
    EXPECT_EQ(speakable(text), valid_utf8(text) && text.find_first_not_of("*(<>") != text.npos);
  }
}

// From each blank line the pattern of bullets reads on to the last.
TEST(DetectFuzz, AMatchLimitIsAnErrorNotAPass) {
  EXPECT_EQ(detect_markdown(std::string(1 << 20, '\n')).status().code(), Code::unavailable);
  EXPECT_TRUE(detect_markdown(std::string(1000, '\n'))->empty());
}

}  // namespace
}  // namespace nibble::text
