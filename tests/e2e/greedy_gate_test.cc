// The sixty greedy replies that transformers gave for models/tiny-voice, played as a gate recipe over the chat API and
// sent as raw prompts: the same text.
#include <gtest/gtest.h>

#include <sstream>

#include "engine/local_engine.h"
#include "gate/chat_stream.h"
#include "gate/runner.h"
#include "io/jsonl.h"
#include "serve/server.h"
#include "tests/support/models.h"
#include "tests/support/temporary_folder.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::gate {
namespace {

using test::kGolden;
using test::kTinyVoice;

struct Greedy {
  std::string prompt, text;  // text: without the end of the turn
};

std::vector<Greedy> greedy_replies() {
  std::vector<Greedy> replies;
  const Status read = for_each_json_line(kGolden / "tiny-voice/greedy.jsonl", [&](Json& line, int64_t) {
    const std::string text = line["greedy_text"];
    replies.push_back({line["prompt"], text.substr(0, text.rfind("<|im_end|>"))});
    return Status();
  });
  EXPECT_TRUE(read.ok()) << read.text();
  EXPECT_EQ(replies.size(), 60u);
  return replies;
}

bool calls(const Greedy& greedy) {
  return greedy.text.find("<tool_call>") != std::string::npos;
}

// What stands between two marks, from `at` on; `at` moves behind the second.
std::string between(const std::string& text, const std::string& begin, const std::string& end, size_t& at) {
  const size_t first = text.find(begin, at) + begin.size(), last = text.find(end, first);
  EXPECT_NE(last, std::string::npos) << begin;
  at = last + end.size();
  return text.substr(first, last - first);
}

// The case whose messages and tools the template renders as this prompt, and whose reply must be that text.
Json case_of(const Greedy& greedy, size_t number) {
  size_t at = 0;
  const std::string system = between(greedy.prompt, "<|im_start|>system\n", "\n\nTools:\n<tools>\n", at);
  std::istringstream lines(greedy.prompt.substr(at, greedy.prompt.find("</tools>") - at));
  Json tools = Json::array();
  for (std::string line; std::getline(lines, line);) tools.push_back(parse_json(line, "tool").value());
  const std::string user = between(greedy.prompt, "<|im_start|>user\n", "<|im_end|>", at);
  Json turn = {{"user", user}, {"expect", {{"equals", greedy.text}}}};
  if (calls(greedy)) {
    turn["expect"] = Json::object();  // what follows the call is not in the golden
    for (const Json& tool : tools) turn["mocks"].push_back({{"tool", tool["function"]["name"]}, {"result", "done"}});
  }
  return {{"id", fmt::format("greedy.{}", number)},
          {"why", "transformers said this"},
          {"system", system},
          {"tools", tools},
          {"turns", {turn}}};
}

TEST(GreedyGate, TheServerSaysWhatTransformersSaid) {
  const auto tokenizer = std::make_shared<const text::Tokenizer>(text::Tokenizer::load(kTinyVoice).value());
  const auto model = std::make_shared<const checkpoint::LoadedModel>(test::load(kTinyVoice));
  const auto engine = engine::start_engine(model, tokenizer, {.numeric = Numeric::exact}).value();
  const auto server =
      serve::Server::start({.port = 0}, engine, tokenizer,
                           std::make_shared<const text::ChatTemplate>(text::ChatTemplate::load(kTinyVoice).value()))
          .value();

  const std::vector<Greedy> replies = greedy_replies();
  Json cases = Json::array();
  for (size_t i = 0; i < replies.size(); ++i) cases.push_back(case_of(replies[i], i));
  const test::TemporaryFolder folder;
  folder.write("greedy.gate", dump({{"name", "greedy"}, {"group", "greedy"}, {"gates", {"greedy"}}, {"cases", cases}}));
  folder.write("greedy.json", R"({"name": "greedy", "version": 1, "title": "what transformers said",
    "params": {"temperature": 0, "max_tokens": 110, "chat_template_kwargs": {"enable_thinking": false}},
    "gates": [{"id": "greedy", "metric": "rate", "op": ">=", "threshold": 1, "min_cases": 60}],
    "cases": ["greedy.gate"]})");
  const Recipe recipe = load_recipe((folder / "greedy.json").string()).value();

  Side side;
  side.endpoint.url = fmt::format("http://127.0.0.1:{}", server->port());
  ChatEndpoint endpoint(side.endpoint);
  side.endpoint.model = endpoint.models().value().front();
  const Records records = play_recipe(recipe, side, {}).value();
  const Report report = report_of(recipe, records, {}).value();
  EXPECT_EQ(report.gates[0].verdict, Verdict::pass) << to_text(report);
  for (size_t i = 0; i < replies.size(); ++i) {
    const Greedy& greedy = replies[i];
    if (calls(greedy)) {
      const CaseRecord record = records.get(fmt::format("greedy.{}", i), 1).value();
      const Reply& first = record.turns[0].messages[0].said.reply;
      size_t mark = 0;
      const Json call = parse_json(between(greedy.text, "<tool_call>\n", "\n</tool_call>", mark), "call").value();
      ASSERT_EQ(first.calls.size(), 1u) << i;
      EXPECT_EQ(first.content, "") << i;
      EXPECT_EQ(first.calls[0].name, call["name"]) << i;
      EXPECT_EQ(parse_json(first.calls[0].arguments, "arguments").value(), call["arguments"]) << i;
    }
    if (i % 4 != 0) continue;  // the same tokens by another way: a part of them will do
    const std::string body = dump({{"prompt", greedy.prompt}, {"temperature", 0}, {"max_tokens", 110}});
    const Json answer = parse_json(endpoint.send("/v1/completions", &body).value(), "completion").value();
    EXPECT_EQ(answer["choices"][0]["text"], greedy.text);
  }
}

}  // namespace
}  // namespace nibble::gate
