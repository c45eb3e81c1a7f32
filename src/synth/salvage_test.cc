#include "synth/salvage.h"

#include <gtest/gtest.h>

namespace nibble::synth {
namespace {

const std::vector<std::string> kRows = {
    R"({"messages": [{"role": "user", "content": "Who sang that {old} song?"}, {"role": "assistant", "content": "S \"P\" B."}]})",
    R"({"id": 2, "messages": [{"role": "user", "content": "ನಮಸ್ಕಾರ"}, {"role": "assistant", "content": "Hello ]} there."}]})",
    R"({"messages": [{"role": "user", "content": "Note: milk"}, {"role": "assistant", "content": "", "tool_calls": [
       {"name": "save_note", "arguments": {"text": "milk"}}]}, {"role": "tool", "content": "{\"ok\": true}"},
       {"role": "assistant", "content": "Saved."}]})"};

std::string array_of(const std::string& open, const std::string& close) {
  return open + kRows[0] + ",\n" + kRows[1] + ", " + kRows[2] + close;
}

TEST(Salvage, ReadsWhatWasAskedFor) {
  const Salvaged found = salvage(array_of("[", "]"));
  ASSERT_EQ(found.rows.size(), 3U);
  EXPECT_EQ(found.broken, 0);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(found.rows[i], Json::parse(kRows[i]));
}

TEST(Salvage, ReadsOtherFormsOfIt) {
  EXPECT_EQ(salvage(array_of("Here they are:\n```json\n[", "]\n```\nEnjoy {them}!")).rows.size(), 3U);
  EXPECT_EQ(salvage(array_of(R"({"conversations": [)", "]}")).rows.size(), 3U);
  EXPECT_EQ(salvage(kRows[0] + "\n" + kRows[1] + "\n\n" + kRows[2]).rows.size(), 3U);  // one a line
  EXPECT_EQ(salvage("<think>A draft: " + kRows[0] + "</think>" + array_of("[", "]")).rows.size(), 3U);
  EXPECT_TRUE(salvage("").rows.empty());
  EXPECT_TRUE(salvage("I cannot do that.").rows.empty());
}

// What was whole before the cut is kept, wherever the cut is.
void cut_everywhere(const std::string& open, const std::string& close) {
  const std::string text = array_of(open, close);
  std::vector<size_t> ends;
  for (const std::string& row : kRows) ends.push_back(text.find(row) + row.size());
  for (size_t size = 0; size <= text.size(); ++size) {
    const Salvaged found = salvage(text.substr(0, size));
    size_t whole = 0;
    while (whole < ends.size() && ends[whole] <= size) ++whole;
    ASSERT_EQ(found.rows.size(), whole) << size;
    for (size_t i = 0; i < whole; ++i) ASSERT_EQ(found.rows[i], Json::parse(kRows[i])) << size;
  }
}

TEST(Salvage, TruncatedAtEveryByte) {
  cut_everywhere("[", "]");
  cut_everywhere(R"({"conversations": [)", "]}");
  cut_everywhere("```json\n[", "]\n```");
}

// One byte of the second row is lost or turned into a quote: the others stay.
TEST(Salvage, BrokenAtEveryByte) {
  const std::string text = array_of("[", "]");
  const size_t begin = text.find(kRows[1]);
  int broken = 0;
  for (size_t at = begin; at < begin + kRows[1].size(); ++at) {
    for (const bool lost : {true, false}) {
      std::string changed = text;
      lost ? changed.erase(at, 1) : changed.replace(at, 1, "\"");
      const Salvaged found = salvage(changed);
      ASSERT_GE(found.rows.size(), 2U) << at;
      EXPECT_EQ(found.rows.front(), Json::parse(kRows[0])) << at;
      EXPECT_EQ(found.rows.back(), Json::parse(kRows[2])) << at;
      broken += found.rows.size() == 2 ? 1 : 0;
    }
  }
  EXPECT_GT(broken, 50);
}

TEST(Salvage, CountsWhatBroke) {
  EXPECT_EQ(salvage(R"([{"messages": [{"role": "user", "content": "a"}, ]}, {"messages": [{"role)").broken, 2);
}

TEST(Salvage, TakesNoTimeOverBraces) {
  EXPECT_TRUE(salvage(std::string(2'000'000, '{')).rows.empty());
  std::string nested;
  for (int i = 0; i < 200'000; ++i) nested += R"({"a":)";
  EXPECT_TRUE(salvage(nested).rows.empty());
}

}  // namespace
}  // namespace nibble::synth
