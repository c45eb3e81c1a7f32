#include "text/pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble::text {
namespace {

Pattern compiled(std::string_view pattern) {
  auto result = Pattern::compile(pattern, "test");
  EXPECT_TRUE(result.ok()) << result.status().text();
  return std::move(result).value();
}

TEST(Pattern, FindsMatchesAndGroups) {
  const Pattern pattern = compiled(R"((\w+)=(\d+)?)");
  const std::string_view text = "å=1, b=";
  EXPECT_TRUE(*pattern.matches(text));
  EXPECT_FALSE(*pattern.matches("a"));

  const auto all = pattern.all_matches(text);
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 2u);
  ASSERT_EQ((*all)[0].size(), 3u);
  EXPECT_EQ((*all)[0][0].of(text), "å=1");
  EXPECT_EQ((*all)[0][1].of(text), "å");
  EXPECT_EQ((*all)[0][2].of(text), "1");
  EXPECT_EQ((*all)[1][0].of(text), "b=");
  EXPECT_FALSE((*all)[1][2].found());
  EXPECT_EQ((*all)[1][2].of(text), "");

  const auto first = pattern.first_match(text);
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_EQ(**first, (*all)[0]);
  EXPECT_FALSE(pattern.first_match("")->has_value());
}

TEST(Pattern, MovesOnBehindEmptyMatches) {
  const auto all = compiled("a*").all_matches("éaa");
  ASSERT_TRUE(all.ok());
  std::vector<Span> spans;
  for (const Match& match : *all) spans.push_back(match[0]);
  EXPECT_EQ(spans, (std::vector<Span>{{0, 0}, {2, 4}, {4, 4}}));
}

TEST(Pattern, RefusesWhatIsNone) {
  const Status status = Pattern::compile("a(b", "recipe: cases[3].must").status();
  EXPECT_EQ(status.code(), Code::corrupt);
  EXPECT_TRUE(status.message().starts_with("recipe: cases[3].must: expected a regular expression, got: "))
      << status.text();
  EXPECT_EQ(Pattern::compile(std::string(70'000, 'a'), "x").status().code(), Code::corrupt);
  EXPECT_EQ(Pattern::compile("\xff", "x").status().code(), Code::corrupt);
  EXPECT_EQ(Pattern::compile("\\C", "x").status().code(), Code::corrupt);
}

TEST(Pattern, RefusesOtherBytes) {
  EXPECT_EQ(compiled("a").matches("\xff").status().code(), Code::invalid_argument);
}

TEST(Pattern, ALimitIsAnErrorNotAPass) {
  const Pattern pattern = compiled("(?:a+)+[bc]");
  const std::string text(64, 'a');
  EXPECT_EQ(pattern.matches(text).status().code(), Code::unavailable);
  EXPECT_EQ(pattern.all_matches(text).status().code(), Code::unavailable);
  EXPECT_TRUE(*pattern.matches(text + 'b'));
}

}  // namespace
}  // namespace nibble::text
