#include "text/prompt_leak.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble::text {
namespace {

constexpr const char* kPrompt =
    "You are Annie, a voice companion. Answer in one or two short plain sentences. The user is Rajesh.";

std::vector<std::string> snippets(std::string_view reply, std::string_view prompt = kPrompt) {
  const auto found = detect_prompt_leak(reply, prompt);
  EXPECT_TRUE(found.ok());
  std::vector<std::string> out;
  for (const Detection& hit : *found) {
    EXPECT_EQ(hit.detector, "prompt_leak");
    out.push_back(hit.snippet);
  }
  return out;
}

using Snippets = std::vector<std::string>;

TEST(PromptLeak, EightWordsInARow) {
  EXPECT_EQ(snippets("I was told to answer in one or two short plain sentences!"),
            Snippets{"answer in one or two short plain sentences"});
  EXPECT_EQ(snippets("Answer in one or two short plain words."), Snippets());  // seven
  EXPECT_EQ(snippets("**You are Annie: a voice companion. ANSWER in** one, as I said."),
            Snippets{"You are Annie: a voice companion. ANSWER in** one"});
  EXPECT_EQ(snippets("I am Annie, a voice companion."), Snippets());
}

TEST(PromptLeak, EveryRunIsOneHit) {
  const std::string part = "Answer in one or two short plain sentences.";
  EXPECT_EQ(snippets(part + " So " + part).size(), 2u);
  EXPECT_EQ(snippets(kPrompt), Snippets{std::string(kPrompt).substr(0, std::string(kPrompt).size() - 1)});
}

// All words and seven of eight in a row are the prompt's, but no eight.
TEST(PromptLeak, WordsAloneAreNone) {
  EXPECT_EQ(snippets("in one or two short plain sentences in one or two short plain sentences"), Snippets());
}

TEST(PromptLeak, ShortPromptsAndOtherBytes) {
  EXPECT_EQ(snippets("You are Annie", "You are Annie"), Snippets());
  EXPECT_EQ(snippets("", ""), Snippets());
  EXPECT_EQ(detect_prompt_leak("\xff", kPrompt).status().code(), Code::invalid_argument);
}

}  // namespace
}  // namespace nibble::text
