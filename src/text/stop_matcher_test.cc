#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"

namespace nibble::text {
namespace {

struct Outcome {
  std::string text;
  bool found;
  bool operator==(const Outcome&) const = default;
};

// The definition, read literally: the shortest prefix that ends with a stop string, and of those the longest.
Outcome naive(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string prefix = text.substr(0, end);
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (prefix.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {prefix.substr(0, include ? end : end - longest), true};
  }
  return {text, false};
}

// What must be held after `text`: its longest suffix that is a proper prefix of a stop string.
size_t naive_hold(const std::string& text, const std::vector<std::string>& stops) {
  size_t hold = 0;
  for (const std::string& stop : stops) {
    for (size_t n = 1; n < stop.size() && n <= text.size(); ++n) {
      if (text.ends_with(stop.substr(0, n))) hold = std::max(hold, n);
    }
  }
  return hold;
}

TEST(StopMatcher, HoldsBackAndCuts) {
  StopMatcher matcher({"</s>", "\nUser:"}, false);
  std::string out;
  EXPECT_FALSE(matcher.feed("Hello <", out));
  EXPECT_EQ(out, "Hello ");
  EXPECT_FALSE(matcher.feed("/b> \nUs", out));
  EXPECT_EQ(out, "Hello </b> ");
  EXPECT_TRUE(matcher.feed("er: hi", out));
  EXPECT_EQ(out, "Hello </b> ");
  EXPECT_EQ(matcher.found(), "\nUser:");
  EXPECT_TRUE(matcher.feed("more", out));
  matcher.finish(out);
  EXPECT_EQ(out, "Hello </b> ");
}

TEST(StopMatcher, ReleasesWhatIsHeldAtTheEnd) {
  StopMatcher matcher({"stop", ""}, true);
  std::string out;
  EXPECT_FALSE(matcher.feed("do not sto", out));
  EXPECT_EQ(out, "do not ");
  matcher.finish(out);
  EXPECT_EQ(out, "do not sto");
  EXPECT_EQ(matcher.found(), std::nullopt);
}

TEST(StopMatcher, WithoutStopsHoldsNothing) {
  StopMatcher matcher({}, false);
  std::string out;
  EXPECT_FALSE(matcher.feed("abc", out));
  EXPECT_EQ(out, "abc");
}

// Small alphabets make overlaps and self-overlaps common.
TEST(StopMatcher, EqualsTheNaiveSearchForEveryChunking) {
  Rng rng(11);
  const auto word = [&](uint32_t longest, uint32_t shortest) {
    std::string text;
    for (uint32_t n = shortest + rng.below(longest - shortest + 1); n > 0; --n)
      text += static_cast<char>('a' + rng.below(2));
    return text;
  };
  int hits = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (uint32_t n = 1 + rng.below(4); n > 0; --n) stops.push_back(word(7, 1 + rng.below(4)));
    const std::string text = word(40, 0);
    const bool include = rng.below(2) == 0;
    const Outcome expected = naive(text, stops, include);
    hits += expected.found;
    for (int chunking = 0; chunking < 4; ++chunking) {
      StopMatcher matcher(stops, include);
      std::string out;
      bool found = false;
      for (size_t at = 0; at < text.size() && !found;) {
        const size_t n = chunking == 0 ? text.size() : chunking == 1 ? 1 : 1 + rng.below(6);
        found = matcher.feed(std::string_view(text).substr(at, n), out);
        at = std::min(at + n, text.size());
        ASSERT_TRUE(found || out.size() == at - naive_hold(text.substr(0, at), stops));
      }
      matcher.finish(out);
      ASSERT_EQ((Outcome{out, found}), expected) << text;
    }
  }
  EXPECT_GT(hits, 1000);
}

}  // namespace
}  // namespace nibble::text
