#include "gate/anomalies.h"

#include <gtest/gtest.h>

#include <set>

namespace nibble::gate {
namespace {

std::set<std::string> found(const StreamedReply& said, bool warnings = false) {
  static const Detectors detectors = Detectors::make({}, true, false).value();
  const auto anomalies = detectors.of_message({.said = said}, "", "");
  EXPECT_TRUE(anomalies.ok()) << anomalies.status().text();
  std::set<std::string> ids;
  for (const Anomaly& anomaly : *anomalies) {
    if (anomaly.warning == warnings) ids.insert(anomaly.id);
  }
  return ids;
}

using Ids = std::set<std::string>;

// No token is shorter than a byte; 64 bytes may have been trimmed.
TEST(Detectors, MoreTokensThanBytesWereSwallowed) {
  StreamedReply said{.reply = {.content = "It may rain."}, .finish = "stop"};
  for (const auto& [tokens, lost] : {std::pair{-1, false}, {12, false}, {76, false}, {77, true}}) {
    said.usage.completion_tokens = tokens;
    EXPECT_EQ(found(said), lost ? Ids{"swallowed"} : Ids{}) << tokens;
  }
  said.usage.reasoning_tokens = 1;  // which the server keeps to itself
  EXPECT_EQ(found(said), Ids{"hidden_thinking"});
  said.usage.reasoning_tokens = 0;
  said.interrupted = true;  // by us
  EXPECT_EQ(found(said), Ids{});
}

TEST(Detectors, ACallThatWasAnnouncedMustCome) {
  EXPECT_EQ(found({.reply = {.content = "I will look."}, .finish = "tool_calls"}), Ids{"swallowed"});
  EXPECT_EQ(found({.reply = {.calls = {{"1", "f", "{}"}}}, .finish = "tool_calls"}), Ids{});
}

TEST(Detectors, ArgumentsAreAnObject) {
  for (const auto& [arguments, broken] :
       {std::pair{"{}", false}, {"", false}, {R"({"a": 1})", false}, {R"({"a": )", true}, {"[1]", true}, {"x", true}}) {
    EXPECT_EQ(found({.reply = {.calls = {{"1", "f", arguments}}}, .finish = "tool_calls"}),
              broken ? Ids{"broken_call"} : Ids{})
        << arguments;
  }
  EXPECT_EQ(found({.reply = {.calls = {{"1", "f", "{}"}, {"2", "f", "{}"}}}, .finish = "tool_calls", .healed = {1}}),
            Ids{"healed_call"});
}

TEST(Detectors, ARunawayIsLongCutOffAndNotInCircles) {
  std::string words;
  for (int i = 0; i < 99; ++i) words += "w" + std::to_string(i) + " ";
  EXPECT_EQ(found({.reply = {.content = words}, .finish = "length"}), Ids{});
  EXPECT_EQ(found({.reply = {.content = words}, .finish = "length"}, true), Ids{"truncated"});
  words += "more";
  EXPECT_EQ(found({.reply = {.content = words}, .finish = "stop"}), Ids{});
  EXPECT_EQ(found({.reply = {.content = words}, .finish = "length"}), Ids{"runaway"});
  for (int i = 0; i < 8; ++i) words += " on and on it goes";
  EXPECT_EQ(found({.reply = {.content = words}, .finish = "length"}), Ids{"repetition.cycle"});
}

TEST(Detectors, AFirstTokenAfterFiveSecondsIsSlow) {
  StreamedReply said{.reply = {.content = "Yes."}, .finish = "stop"};
  said.times.first_answer_ms = 5000;
  EXPECT_EQ(found(said, true), Ids{});
  said.times.first_answer_ms = 5001;
  EXPECT_EQ(found(said, true), Ids{"slow"});
}

TEST(Detectors, AreKnownByName) {
  for (const char* name : {"md", "md.bold", "think", "tool_loop", "repetition", "repetition.cycle", "swallowed"}) {
    EXPECT_TRUE(is_detector(name)) << name;
  }
  for (const char* name : {"", "mdd", "md.bald", "toolloop"}) EXPECT_FALSE(is_detector(name)) << name;
}

}  // namespace
}  // namespace nibble::gate
