#include "train/record.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/rng.h"

namespace nibble::train {
namespace {

constexpr const char* kTools = R"("tools": [{"type": "function", "function": {"name": "search"}}])";
constexpr const char* kUser = R"({"role": "user", "content": "hi"})";
constexpr const char* kCall =
    R"({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "function": {"name": "search", "arguments": "{\"q\": 1}"}}]})";

std::string line(const std::string& messages, const std::string& more = "") {
  return fmt::format("{{\"messages\": [{}]{}{}}}", messages, more.empty() ? "" : ", ", more);
}

Record good(const std::string& text) {
  auto record = parse_record(text, "f:1");
  EXPECT_TRUE(record.ok()) << text << "\n" << record.status().text();
  return record.ok() ? *record : Record();
}

TEST(Record, ReadsWeightsObjectiveAndLabels) {
  const Record r = good(line(std::string(kUser) + R"(,
      {"role": "assistant", "content": "a", "weight": 0.5},
      {"role": "assistant", "content": "b", "loss": false},
      {"role": "assistant", "content": "c", "loss": true})",
                             R"("weight": 2, "objective": "kl", "id": 7, "meta": {"category": "memory"}, "x": 1)"));
  EXPECT_EQ(r.weight, (std::vector<float>{0, 1, 0, 2}));
  EXPECT_EQ(r.objective, Objective::kl);
  EXPECT_EQ(r.id, "7");
  EXPECT_EQ(r.category, "memory");
  EXPECT_FALSE(r.messages[1].contains("weight") || r.messages[2].contains("loss"));
  const Record none = good(line(std::string(kUser) + R"(, {"role": "assistant", "content": "a"})", R"("loss": false)"));
  EXPECT_EQ(none.weight, (std::vector<float>{0, 0}));
}

TEST(Record, ReadsOtherForms) {
  const Record share = good(
      R"({"system": "S", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
          {"from": "function_call", "value": "{\"name\": \"search\", \"arguments\": {\"q\": 1}}"},
          {"from": "observation", "value": "r"}], "tools": "[{\"name\": \"search\"}]"})");
  ASSERT_EQ(share.messages.size(), 5u);
  EXPECT_EQ(share.messages[0]["role"], "system");
  EXPECT_EQ(share.messages[2]["content"], "b");
  EXPECT_EQ(share.messages[3]["tool_calls"][0]["function"]["arguments"]["q"], 1);
  EXPECT_EQ(share.messages[4]["role"], "tool");
  EXPECT_EQ(share.weight, (std::vector<float>{0, 0, 1, 1, 0}));

  const Record pair = good(R"({"prompt": "a", "completion": "b"})");
  EXPECT_EQ(pair.messages, (Json{{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}}));
  const Record lists =
      good(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(lists.messages, pair.messages);
  EXPECT_EQ(content_key(lists), content_key(pair));
}

TEST(Record, BringsMessagesIntoOneForm) {
  const Record r =
      good(line(std::string(kUser) + "," + kCall + R"(, {"role": "tool", "content": "r", "tool_call_id": "c1"},
      {"role": "assistant", "content": "\n<think>\nso\n</think>\n\nyes"},
      {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})",
                kTools));
  EXPECT_EQ(r.messages[1]["tool_calls"][0]["function"]["arguments"], (Json{{"q", 1}}));
  EXPECT_EQ(r.messages[1]["content"], "");
  EXPECT_EQ(r.messages[3]["reasoning_content"], "so");
  EXPECT_EQ(r.messages[3]["content"], "yes");
  EXPECT_EQ(r.messages[4]["content"], "ab");
}

TEST(Record, GroupsByPersonaElseByTheFirstWords) {
  const std::string talk = std::string(kUser) + R"(, {"role": "assistant", "content": "a"})";
  const std::string other = std::string(kUser) + R"(, {"role": "assistant", "content": "b"})";
  EXPECT_EQ(good(line(talk, R"("meta": {"persona": "Asha"})")).group, "persona=Asha");
  EXPECT_EQ(good(line(talk, R"("template": 3, "id-group": "x")")).group, "template=3");
  EXPECT_EQ(good(line(talk)).group, good(line(other)).group);
  EXPECT_NE(good(line(talk)).group, good(line(R"({"role": "user", "content": "ho"})")).group);
}

struct Bad {
  const char* name;
  std::string text;
  const char* message;
};

TEST(Record, SaysWhatIsWrongAndWhere) {
  const std::string user = kUser, call = kCall;
  const Bad cases[] = {
      {"broken json", "{\"messages\": [", "expected valid JSON"},
      {"no object", "[1]", "expected a JSON object, got array"},
      {"no messages", "{}", "expected a conversation with \"messages\""},
      {"empty", line(""), "messages: expected at least one message"},
      {"messages type", "{\"messages\": 3}", "messages: expected an array, got number"},
      {"message type", line("3"), "messages[0]: expected an object with a role"},
      {"unknown role", line(R"({"role": "robot", "content": "a"})"), "messages[0].role: expected system, developer"},
      {"content type", line(R"({"role": "user", "content": 3})"), "messages[0].content: expected text, got number"},
      {"no content", line(R"({"role": "user"})"), "messages[0].content: expected text, got null"},
      {"image", line(R"({"role": "user", "content": [{"type": "image_url"}]})"), "expected parts of type \"text\""},
      {"empty assistant", line(user + R"(, {"role": "assistant", "content": " \n"})"),
       "messages[1]: expected content or a tool call"},
      {"thinks only", line(user + R"(, {"role": "assistant", "content": "<think>a</think>"})"),
       "got an empty assistant message"},
      {"call without tools", line(user + "," + call),
       "messages[1].tool_calls[0]: expected \"tools\" that define \"search\""},
      {"unknown tool", line(user + R"(, {"role": "assistant", "tool_calls": [{"function": {"name": "fly"}}]})", kTools),
       "expected one of the 1 tools, got \"fly\""},
      {"call type", line(user + R"(, {"role": "assistant", "tool_calls": [3]})", kTools),
       "tool_calls[0]: expected an object"},
      {"calls type", line(user + R"(, {"role": "assistant", "tool_calls": {}})", kTools),
       "tool_calls: expected an array, got object"},
      {"arguments",
       line(user + R"(, {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": "{q"}}]})",
            kTools),
       "arguments: expected a JSON object"},
      {"arguments type",
       line(user + R"(, {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": [1]}}]})",
            kTools),
       "arguments: expected an object, got [1]"},
      {"result without call", line(user + R"(, {"role": "tool", "content": "r"})"),
       "messages[1]: expected a tool call before this tool message"},
      {"second result",
       line(user + "," + call + R"(, {"role": "tool", "content": "r"}, {"role": "tool", "content": "r"})", kTools),
       "messages[3]: expected a tool call"},
      {"wrong id", line(user + "," + call + R"(, {"role": "tool", "content": "r", "tool_call_id": "c9"})", kTools),
       "tool_call_id: expected the id of a call, got \"c9\""},
      {"loss on user", line(R"({"role": "user", "content": "a", "loss": true})"),
       "messages[0].loss: expected true on assistant messages only"},
      {"weight on user", line(R"({"role": "user", "content": "a", "weight": 1})"),
       "messages[0].weight: expected weights on assistant"},
      {"loss type", line(user, R"("loss": "yes")"), "loss: expected true or false, got \"yes\""},
      {"negative weight", line(user, R"("weight": -1)"), "weight: expected a number from 0 to 1e6, got -1"},
      {"weight type", line(user, R"("weight": "1")"), "weight: expected a number"},
      {"objective", line(user, R"("objective": "mse")"), "objective: expected \"ce\", \"kl\" or \"both\", got \"mse\""},
      {"tools type", line(user, R"("tools": {"a": 1})"), "tools: expected an array, got object"},
      {"tool without name", line(user, R"("tools": [{"type": "function"}])"), "tools[0]: expected"},
      {"reasoning type", line(user + R"(, {"role": "assistant", "content": "a", "reasoning_content": 1})"),
       "reasoning_content: expected text"},
      {"sharegpt", R"({"conversations": [{"from": "human"}]})", "conversations[0]: expected"},
      {"sharegpt role", R"({"conversations": [{"from": "alien", "value": "x"}]})", "messages[0].role"},
      {"duplicate key", R"({"messages": [], "messages": []})", "duplicate key"},
  };
  for (const Bad& c : cases) {
    const auto record = parse_record(c.text, "chats.jsonl:12");
    ASSERT_FALSE(record.ok()) << c.name;
    EXPECT_EQ(record.status().code(), Code::corrupt) << c.name;
    EXPECT_EQ(record.status().message().rfind("chats.jsonl:12: ", 0), 0u) << c.name << ": " << record.status().text();
    EXPECT_NE(record.status().message().find(c.message), std::string::npos) << c.name << ": " << record.status().text();
  }
}

// Damaged lines give a record or an error, nothing else.
TEST(Record, IsTotal) {
  const std::string seed_line =
      line(std::string(kUser) + "," + kCall + R"(, {"role": "tool", "content": "r", "tool_call_id": "c1"},
      {"role": "assistant", "content": "<think>a</think>b", "weight": 1, "loss": true})",
           std::string(kTools) + R"(, "weight": 1, "loss": true, "objective": "ce", "meta": {"persona": "x"})");
  const std::vector<std::string> scraps = {"null",   "{}",   "[]",         "\"\"",    "3",
                                           "-1e999", "true", "{\"role\":", "\\u0000", "\xff"};
  Rng rng(1);
  int sound = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seed_line;
    for (uint32_t n = 1 + rng.below(3); n > 0; --n) {
      const auto at = rng.below(static_cast<uint32_t>(text.size()));
      switch (rng.below(4)) {
        case 0:
          text[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          text.erase(at, 1 + rng.below(8));
          break;
        case 2:
          text.insert(at, text.substr(rng.below(static_cast<uint32_t>(text.size())), rng.below(20)));
          break;
        default: {  // a whole value becomes another
          const size_t begin = text.find(": ", at);
          if (begin == std::string::npos) break;
          const size_t end = text.find_first_of(",}]", begin);
          if (end == std::string::npos) break;
          text.replace(begin + 2, end - begin - 2, scraps[rng.below(static_cast<uint32_t>(scraps.size()))]);
        }
      }
      if (text.empty()) text.push_back('{');
    }
    const auto record = parse_record(text, "f:1");
    if (!record.ok()) {
      EXPECT_FALSE(record.status().message().empty());
      continue;
    }
    ++sound;
    EXPECT_EQ(record->weight.size(), record->messages.size());
  }
  EXPECT_GT(sound, 100);
}

}  // namespace
}  // namespace nibble::train
