// The bundled recipe against a scripted model: one that is right in everything, and eleven that each break one thing.
#include <gtest/gtest.h>

#include <functional>

#include "gate/chat_stream.h"
#include "gate/mocks.h"
#include "gate/recipe.h"
#include "gate/runner.h"
#include "tests/support/replay_server.h"

namespace nibble::gate {
namespace {

using Messages = std::vector<GoodMessage>;

// What a model writes for a message, in the Hermes dialect.
std::string written(const GoodMessage& message) {
  std::string text = message.text;
  for (const auto& [name, arguments] : message.calls) {
    text += (text.empty() ? "" : "\n") +
            fmt::format("<tool_call>\n{}\n</tool_call>", dump({{"name", name}, {"arguments", arguments}}));
  }
  return text;
}

// What must stand in the prompt of the next message: everything that was said and answered in the turns so far.
class Script {
 public:
  /// The entries of one case: its good messages, as `change` leaves them.
  void add(const Case& one, const std::function<void(size_t turn, Messages&)>& change) {
    std::vector<std::string> said;
    if (!one.history.empty()) said.push_back(last_content(one.history));
    std::vector<std::string> entries;
    for (size_t t = 0; t < one.turns.size(); ++t) {
      const Turn& turn = one.turns[t];
      Messages messages = turn.good;
      change(t, messages);
      MockTools tools(turn.mocks);
      const std::string user = "<|im_start|>user\n" + turn.user + "<|im_end|>";
      said.push_back(user);
      for (size_t m = 0; m < messages.size(); ++m) {
        const GoodMessage& message = messages[m];
        // After the first message of a turn the prompt holds it, too.
        if (m == 1) said.push_back(user + "\n<|im_start|>assistant\n" + written(messages[0]).substr(0, 11));
        entries.push_back(dump({{"match", {{"contains", said}}}, {"chunks", {{{"text", written(message)}}}}}));
        for (const auto& [name, arguments] : message.calls) {
          const Mock* mock = tools.answer({.id = "", .name = name, .arguments = dump(arguments)}).value();
          said.push_back("<tool_response>\n" + (mock == nullptr ? MockTools::kNotFound : mock->result));
        }
      }
    }
    // What needs more of the prompt comes first.
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) text_ += *entry + "\n";
  }

  const std::string& text() const { return text_; }

 private:
  static std::string last_content(const Json& messages) { return messages.back()["content"].get<std::string>(); }

  std::string text_;
};

// A model that is right, but for the cases of one gate, in which `change` breaks something.
struct Mutant {
  const char* gate;
  std::function<void(const Case&, size_t turn, Messages&)> change;
};

Report play(const Recipe& recipe, const Mutant& mutant) {
  Script script;
  // Cases after a long talk first: their prompts hold more.
  for (const bool with_history : {true, false}) {
    for (const Case& one : recipe.cases) {
      if (one.history.empty() == with_history) continue;
      const bool broken = std::find(one.gates.begin(), one.gates.end(), mutant.gate) != one.gates.end();
      script.add(one, [&](size_t turn, Messages& messages) {
        if (broken) mutant.change(one, turn, messages);
      });
    }
  }
  const test::ReplayServer server(script.text());
  Side side;
  side.endpoint.url = server.url("");
  side.endpoint.model = "replay";
  side.server = {{"owned_by", "nibble"}};
  auto records = play_recipe(recipe, side, {.jobs = 8});
  EXPECT_TRUE(records.ok()) << records.status().text();
  auto report = report_of(recipe, *records, {});
  EXPECT_TRUE(report.ok()) << report.status().text();
  return std::move(report).value();
}

const Recipe& companion() {
  static const Recipe recipe = load_recipe("companion").value();
  return recipe;
}

void expect_only_failure(const Report& report, const std::string& gate) {
  for (const GateResult& result : report.gates) {
    if (result.verdict == Verdict::not_judged) continue;
    const bool fails = result.verdict != Verdict::pass;
    EXPECT_EQ(fails, result.gate.id == gate) << to_text(report);
  }
  EXPECT_EQ(report.exit_code(), gate.empty() ? 0 : 1);
  EXPECT_EQ(report.errors, 0);
}

TEST(GateReplay, ThePerfectModelPassesEverything) {
  const Report report = play(companion(), {"none", {}});
  expect_only_failure(report, "");
  EXPECT_EQ(report.overall.passed, report.overall.cases) << to_text(report);
  EXPECT_EQ(report.overall.with_manners, report.overall.cases) << to_text(report);
}

std::string& last_text(Messages& messages) {
  return messages.back().text;
}

void replace_all(Messages& messages, std::string text) {
  messages = {GoodMessage{.text = std::move(text), .calls = {}}};
}

TEST(GateReplay, EveryMutantFailsExactlyItsGate) {
  const std::vector<Mutant> mutants = {
      {"thinking_leak", [](const Case&, size_t,
                           Messages& m) { last_text(m) = "Okay, so the user is asking about this. " + last_text(m); }},
      {"markdown_leak", [](const Case&, size_t, Messages& m) { last_text(m) = "**Well.** " + last_text(m); }},
      {"tool_calling",
       [](const Case&, size_t, Messages& m) {
         for (GoodMessage& message : m) {
           for (auto& [name, arguments] : message.calls) {
             name = name == "save_note" ? "set_timer" : "save_note";
             arguments = name == "save_note" ? Json{{"text", "something"}} : Json{{"minutes", 3}};
           }
         }
       }},
      {"factual", [](const Case&, size_t, Messages& m) { replace_all(m, "That would be a purple hippopotamus."); }},
      {"reasoning", [](const Case&, size_t, Messages& m) { replace_all(m, "The result is 987654."); }},
      {"topic_switch",
       [](const Case& one, size_t turn, Messages& m) {
         if (turn > 0) m = one.turns[turn - 1].good;
         for (GoodMessage& message : m) message.calls.clear();
       }},
      {"direct_action", [](const Case&, size_t, Messages& m) { replace_all(m, "Shall I do that now?"); }},
      {"concise",
       [](const Case&, size_t, Messages& m) {
         last_text(m) += " There is more to say. It goes on for long. It never seems to end. Such is life.";
       }},
      {"honest_memory",
       [](const Case&, size_t, Messages& m) { replace_all(m, "It was moved to Friday the 14th, at Hotel Plaza."); }},
      {"correct_name", [](const Case&, size_t, Messages& m) { replace_all(m, "Hello, Vikram."); }},
      {"bangalore_context", [](const Case&, size_t, Messages& m) { replace_all(m, "Nothing comes to mind."); }},
  };
  for (const Mutant& mutant : mutants) {
    SCOPED_TRACE(mutant.gate);
    expect_only_failure(play(companion(), mutant), mutant.gate);
  }
}

}  // namespace
}  // namespace nibble::gate
