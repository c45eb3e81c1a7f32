#include "synth/validate.h"

#include <gtest/gtest.h>

#include "gate/recipe.h"
#include "synth/personal_data.h"
#include "synth/test_recipe.h"

namespace nibble::synth {
namespace {

Json user(const std::string& text) {
  return {{"role", "user"}, {"content", text}};
}
Json says(const std::string& text) {
  return {{"role", "assistant"}, {"content", text}};
}
Json result(const std::string& text) {
  return {{"role", "tool"}, {"content", text}};
}
Json calls(const std::string& tool, const Json& arguments) {
  return {{"role", "assistant"},
          {"content", ""},
          {"tool_calls", {{{"type", "function"}, {"function", {{"name", tool}, {"arguments", arguments}}}}}}};
}

class Validate : public ::testing::Test {
 protected:
  /// The reasons for which the messages may not go in, under rules on top of the defaults.
  std::vector<std::string> reasons(const std::vector<Json>& messages, Json rules = Json::object()) {
    if (!rules.contains("tokens")) rules["tokens"] = {1, 2048};
    const Recipe recipe = test::write_recipe({{"rules", rules}});
    hold_out_.add("held.one", "What is the price of a red umbrella in the market today?");
    const auto validator = Validator::make(recipe, {}, &hold_out_);
    EXPECT_TRUE(validator.ok()) << validator.status().text();
    Json all = Json::array({{{"role", "system"}, {"content", "You are Annie."}}});
    for (const Json& message : messages) all.push_back(message);
    const auto faults = validator->faults(recipe.categories[0], {{"messages", all}, {"tools", recipe.tools}});
    EXPECT_TRUE(faults.ok()) << faults.status().text();
    std::vector<std::string> words;
    for (const Fault& fault : *faults) words.push_back(fault.reason);
    text_ = to_text(*faults);
    return words;
  }
  using Reasons = std::vector<std::string>;
  HoldOut hold_out_;
  std::string text_;
};

const Json kAsk = user("Is it far?"), kReply = says("It is quite near.");

TEST_F(Validate, SoundOnesPass) {
  EXPECT_EQ(reasons({kAsk, kReply}), Reasons{}) << text_;
  EXPECT_EQ(reasons({kAsk, calls("set_timer", {{"minutes", 5}}), result("{}"), kReply, kAsk, kReply}), Reasons{})
      << text_;
}

TEST_F(Validate, RolesAreInOrder) {
  EXPECT_EQ(reasons({}), Reasons{"order"});
  EXPECT_EQ(reasons({kReply}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, kAsk, kReply}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, kReply, kReply}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, result("{}"), kReply}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, calls("set_timer", {{"minutes", 5}}), kReply}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, calls("set_timer", {{"minutes", 5}}), result("{}")}), Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, calls("set_timer", {{"minutes", 5}}), result("{}"), result("{}"), kReply}),
            Reasons{"order"});
  EXPECT_EQ(reasons({kAsk, says(" ")}), Reasons{"shape"});
  EXPECT_EQ(reasons({user(""), kReply}), Reasons{"shape"});
  EXPECT_EQ(reasons({kAsk, kReply, {{"role", "system"}, {"content", "x"}}, kAsk, kReply}), Reasons{"shape"});
}

TEST_F(Validate, TurnsAreCounted) {
  EXPECT_EQ(reasons({kAsk, kReply, kAsk, kReply, kAsk, kReply, kAsk, kReply}), Reasons{"turns"});
}

TEST_F(Validate, NoThinking) {
  EXPECT_EQ(reasons({kAsk, says("<think>Hm.</think>It is near.")}), Reasons{"think"});
  EXPECT_EQ(reasons({kAsk, {{"role", "assistant"}, {"content", "Near."}, {"reasoning_content", "Hm."}}}),
            Reasons{"thinking"});
}

TEST_F(Validate, NoMarkdownNorTags) {
  EXPECT_EQ(reasons({kAsk, says("It is **near**.")}), Reasons{"md"});
  EXPECT_EQ(reasons({kAsk, says("- near\n- far")}), Reasons{"md"});
  EXPECT_EQ(reasons({user("**Hi** <think>"), kReply}), Reasons{}) << text_;  // users may
  EXPECT_EQ(reasons({kAsk, says("<tool_call>")}), Reasons{"tag"});
}

TEST_F(Validate, CallsFitTheTools) {
  const auto with = [&](const Json& call, const Json& rules = Json::object()) {
    return reasons({kAsk, call, result("{}"), kReply}, rules);
  };
  EXPECT_EQ(with(calls("open_door", Json::object())), (Reasons{"tool", "record"}));
  EXPECT_EQ(with(calls("set_timer", {{"minutes", "five"}})), Reasons{"arguments"});
  EXPECT_EQ(with(calls("set_timer", Json::object())), Reasons{"arguments"});
  EXPECT_EQ(with(calls("set_timer", {{"minutes", 5}, {"loud", true}})), Reasons{"arguments"});
  EXPECT_EQ(with(calls("set_timer", "five"))[0], "arguments");
  EXPECT_EQ(with(calls("set_timer", {{"minutes", 5}}), {{"call_one_of", {"search_memory"}}}), Reasons{"wrong_tool"});
  EXPECT_EQ(with(calls("set_timer", {{"minutes", 5}}), {{"calls", {0, 0}}}), Reasons{"calls"});
  EXPECT_EQ(reasons({kAsk, kReply}, {{"calls", {1, 4}}}), Reasons{"calls"});
  Json chatty = calls("set_timer", {{"minutes", 5}});
  chatty["content"] = "One moment.";
  EXPECT_EQ(with(chatty, {{"direct", true}}), Reasons{"direct"});
}

TEST_F(Validate, ClaimsNeedACall) {
  EXPECT_EQ(reasons({kAsk, says("Timer set for five minutes.")}), Reasons{"phantom"});
  EXPECT_EQ(reasons({kAsk, calls("set_timer", {{"minutes", 5}}), result("{}"), says("Timer set for five minutes.")}),
            Reasons{})
      << text_;
}

TEST_F(Validate, EmptyResultsAreOwned) {
  const Json search = calls("search_memory", {{"query", "Arun"}}), nothing = result(R"({"results": []})");
  const Json rules = {{"honest", true}};
  EXPECT_EQ(reasons({kAsk, search, nothing, says("I do not remember that.")}, rules), Reasons{}) << text_;
  EXPECT_EQ(reasons({kAsk, search, nothing, says("He likes it.")}, rules), Reasons{"honest"});
  EXPECT_EQ(reasons({kAsk, search, nothing, says("I do not remember that, but it was Friday.")}, rules),
            Reasons{"honest"});
  EXPECT_EQ(reasons({kAsk, search, result(R"({"results": ["it was Friday"]})"), says("It was Friday.")}, rules),
            Reasons{})
      << text_;
  EXPECT_EQ(reasons({kAsk, search, nothing, says("He likes it.")}), Reasons{});
}

TEST_F(Validate, RepliesAreShort) {
  EXPECT_EQ(reasons({kAsk, says("One. Two. Three.")}, {{"sentences", 2}}), Reasons{"long_reply"});
  EXPECT_EQ(reasons({kAsk, says("It is near the old mill.")}, {{"words", 5}}), Reasons{"long_reply"});
}

TEST_F(Validate, LengthIsInTokens) {
  EXPECT_EQ(reasons({kAsk, kReply}, {{"tokens", {1000, 2048}}}), Reasons{"length"});
  EXPECT_EQ(reasons({user(std::string(9000, 'x') + "?"), kReply}), Reasons{"length"});
}

TEST_F(Validate, ScriptsAndEncoding) {
  EXPECT_EQ(reasons({kAsk, says("ನಮಸ್ಕಾರ, it is near.")}), Reasons{}) << text_;
  EXPECT_EQ(reasons({kAsk, says("Это близко.")}), Reasons{"encoding"});
  EXPECT_EQ(reasons({user("Далеко?"), kReply}), Reasons{"encoding"});
  EXPECT_EQ(reasons({kAsk, says("It is near\x01.")}), Reasons{"encoding"});
}

TEST_F(Validate, NoCircles) {
  EXPECT_EQ(reasons({kAsk, says("ok ok ok ok ok ok")}), Reasons{"repetition"});
}

TEST_F(Validate, NoPersonalData) {
  EXPECT_EQ(reasons({user("Write to asha.rao@example.org please"), kReply}), Reasons{"personal_data"});
  EXPECT_EQ(reasons({kAsk, calls("search_memory", {{"query", "+91 98450 12345"}}), result("{}"), kReply}),
            Reasons{"personal_data"});
  EXPECT_EQ(reasons({user("Write to asha.rao@example.org please"), kReply}, {{"personal_data", false}}), Reasons{});
}

TEST_F(Validate, PatternsOfTheRecipe) {
  const Json rules = {
      {"patterns",
       {{{"name", "no weather"}, {"must_not", "(?i)rain"}}, {{"name", "asks"}, {"role", "user"}, {"must", "\\?"}}}}};
  EXPECT_EQ(reasons({kAsk, kReply}, rules), Reasons{});
  EXPECT_EQ(reasons({kAsk, says("It may Rain.")}, rules), Reasons{"pattern"});
  EXPECT_EQ(reasons({user("Tell me."), kReply}, rules), Reasons{"pattern"});
}

TEST_F(Validate, GatePromptsAreHeldOut) {
  EXPECT_EQ(reasons({user("what is the price of a red umbrella in the market today"), kReply}), Reasons{"holdout"});
  EXPECT_EQ(reasons({user("So what is the price of a red umbrella in the market today?"), kReply}), Reasons{"holdout"});
  EXPECT_EQ(reasons({user("What is the price of an umbrella?"), kReply}), Reasons{});
}

TEST(PersonalData, KnowsItFromOtherNumbers) {
  const auto kind = [](const char* text) {
    const auto found = find_personal_data(text);
    return found.ok() && *found ? (*found)->kind : "";
  };
  EXPECT_EQ(kind("mail me at a.b+c@host.co.in."), "mail address");
  EXPECT_EQ(kind("my card is 4111 1111 1111 1111"), "card number");
  EXPECT_EQ(kind("my card is 4111111111111111"), "card number");
  EXPECT_EQ(kind("the code is 4111111111111112"), "");
  EXPECT_EQ(kind("Aadhaar 2345 6789 0123"), "identity number");
  for (const char* number :
       {"98450 12345", "9845012345", "+91 98450 12345", "+1 (415) 555-0123", "080-2345-6789", "415-555-0123"}) {
    EXPECT_EQ(kind(number), "phone number") << number;
  }
  for (const char* text :
       {"in 2024 and 2025", "on 2024-05-12 at 10:30", "12-05-2024", "1,000,000 people", "it costs 45000 rupees",
        "3.14159265358979", "room 404, 12 to 14", "page 123-125", "it is 10.30 p.m.", "set 5 timers"}) {
    EXPECT_EQ(kind(text), "") << text;
  }
}

TEST(HoldOut, ReadsCasesOfTheGates) {
  HoldOut hold_out;
  ASSERT_TRUE(hold_out.add_cases("companion").ok());
  EXPECT_GT(hold_out.size(), 50U);
  const auto recipe = gate::load_recipe("companion");
  for (const gate::Case& one : recipe->cases) {
    EXPECT_TRUE(hold_out.overlap(one.turns[0].user + "!").has_value()) << one.id;
  }
  EXPECT_FALSE(hold_out.overlap("Who wound the clock of the old mill last week?").has_value());
  HoldOut world;
  ASSERT_TRUE(world.add_cases(NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl").ok());
  EXPECT_GE(world.size(), 400U);
  EXPECT_FALSE(world.add_cases("no_such_recipe").ok());
}

}  // namespace
}  // namespace nibble::synth
