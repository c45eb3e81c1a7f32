#include "text/sentences.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace nibble::text {
namespace {

std::vector<std::string> texts_of(const std::vector<Sentence>& all) {
  std::vector<std::string> out;
  out.reserve(all.size());
  for (const Sentence& sentence : all) out.push_back(sentence.text);
  return out;
}

TEST(Sentences, EndWhereASpeakerBreathes) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {
      {"Dr. Rao said 3.5 is fine. Ok?", {"Dr. Rao said 3.5 is fine.", "Ok?"}},
      {"Well, it is raining in Bengaluru, so take an umbrella. Bye!",
       {"Well, it is raining in Bengaluru, so take an umbrella.", "Bye!"}},
      {"Sure, ok. Next.", {"Sure, ok.", "Next."}},
      {"A. P. J. Abdul Kalam was born in 1931. He was great.",
       {"A. P. J. Abdul Kalam was born in 1931.", "He was great."}},
      {"It costs Rs. 1,500, not more.", {"It costs Rs. 1,500, not more."}},
      {"See example.com for more. Thanks", {"See example.com for more.", "Thanks"}},
      {"\"Stop!\" she said. Then left.", {"\"Stop!\"", "she said.", "Then left."}},
      {"Meet at 5 p.m. today. Fine.", {"Meet at 5 p.m. today.", "Fine."}},
      {"1. Milk is white. 2. Eggs.", {"1. Milk is white.", "2. Eggs."}},
      {"ನಮಸ್ಕಾರ। ಹೇಗಿದ್ದೀರಾ?", {"ನಮಸ್ಕಾರ।", "ಹೇಗಿದ್ದೀರಾ?"}},
      {"你好。再见！", {"你好。", "再见！"}},
      {"Really?! Yes.", {"Really?!", "Yes."}},
      {"   ", {}},
      {"", {}},
      {"... ! \n 😀", {}},
      {"Wait… what?", {"Wait…", "what?"}},
      {"Wait…what?", {"Wait…", "what?"}},
      {"Wait...what?", {"Wait...what?"}},
      {"Milk\nEggs\n\n- Tea\n", {"Milk", "Eggs", "- Tea"}},
      {"(It is so.) Yes", {"(It is so.)", "Yes"}},
      {"It fell in 19. Then 123. Ok", {"It fell in 19.", "Then 123.", "Ok"}},
      {"123. Ok", {"123.", "Ok"}},
      {"He came on 5 Jan. with Smt. Rao, i.e. late.", {"He came on 5 Jan. with Smt. Rao, i.e. late."}},
      {"(e.g.) this", {"(e.g.) this"}},
      {"The banana. Étude", {"The banana.", "Étude"}},
      {"Plan É. Next", {"Plan É. Next"}},
      {"Etc.! Then", {"Etc.!", "Then"}},
      {"End.\u00A0Next\u2028one", {"End.", "Next\u2028one"}},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(texts_of(sentences(text)), expected) << text;
}

TEST(Sentences, LongOnesAreCutAtASpace) {
  std::string words;
  for (int i = 0; i < 100; ++i) words += "word ";  // 500 characters
  const auto cut = texts_of(sentences(words));
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_EQ(cut[0].size(), 199u);  // 40 words
  EXPECT_EQ(cut[1].size(), 199u);
  EXPECT_EQ(cut[2].size(), 99u);
  EXPECT_EQ(sentences(words, SentenceSplitter::kNoLimit).size(), 1u);

  EXPECT_EQ(texts_of(sentences(std::string(450, 'a'))),
            (std::vector<std::string>{std::string(200, 'a'), std::string(200, 'a'), std::string(50, 'a')}));
  EXPECT_EQ(texts_of(sentences("a" + std::string(500, ' ') + "b")), (std::vector<std::string>{"a", "b"}));
  // Exactly as long as allowed.
  EXPECT_EQ(sentences(std::string(199, 'a') + ". Next").size(), 2u);

  std::string kannada;
  for (int i = 0; i < 200; ++i) kannada += "ನ";
  EXPECT_EQ(sentences(kannada).size(), 1u);
}

// Bytes, rules and limits meet at random; each result is what the whole text gives.
TEST(Sentences, DoNotDependOnTheCutsOfTheStream) {
  Rng rng(5);
  const std::vector<std::string> pieces = {"a",  "Dr", ".",  ".",     " ",    " ",        "!",  "?",
                                           "\n", "…",  "\"", ")",     "12",   "1",        "A.", "e.g",
                                           "ನಮ", "।",  "。", "word ", "\xff", "\xe0\xa4", "😀"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint32_t n = rng.below(60); n > 0; --n) text += pieces[rng.below(static_cast<uint32_t>(pieces.size()))];
    const size_t limit = rng.below(2) == 0 ? SentenceSplitter::kNoLimit : 1 + rng.below(20);
    const auto whole = sentences(text, limit);

    SentenceSplitter splitter(limit);
    std::vector<Sentence> parts;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(1 + rng.below(4), text.size() - at);
      splitter.feed(std::string_view(text).substr(at, n), parts);
      at += n;
    }
    splitter.finish(parts);
    ASSERT_EQ(texts_of(parts), texts_of(whole)) << text;

    size_t end = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      ASSERT_EQ(parts[i].begin, whole[i].begin);
      ASSERT_GE(whole[i].begin, end) << text;
      ASSERT_EQ(text.substr(whole[i].begin, whole[i].text.size()), whole[i].text);
      end = whole[i].begin + whole[i].text.size();
    }
  }
}

TEST(Sentences, LinearInAnyText) {
  for (const char* piece : {"!", "a", ".", " ", "a.", "A. ", "\n", "\"", "。", "e.g. "}) {
    std::string text;
    while (text.size() < 1 << 20) text += piece;
    for (const size_t limit : {SentenceSplitter::kSpokenCharacters, SentenceSplitter::kNoLimit}) {
      size_t bytes = 0;
      for (const Sentence& sentence : sentences(text, limit)) bytes += sentence.text.size();
      EXPECT_LE(bytes, text.size());
    }
  }
}

}  // namespace
}  // namespace nibble::text
