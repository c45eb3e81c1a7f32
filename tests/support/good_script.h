// For tests: the replay script of a model that says the `good` answers of a recipe's cases, or what a test makes of
// them.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gate/chat_stream.h"
#include "gate/mocks.h"
#include "gate/recipe.h"

namespace nibble::test {

class GoodScript {
 public:
  using Messages = std::vector<gate::GoodMessage>;
  /// Changes the answers of a turn, counted from 0.
  using Change = std::function<void(const gate::Case&, size_t turn, Messages&)>;

  /// The entries of every case; of those that list the gate as `change` leaves them, whose answers begin after
  /// `delay_ms` of silence.
  static GoodScript of(const gate::Recipe& recipe, const std::string& gate = {}, const Change& change = {},
                       const std::function<int64_t(size_t turn)>& delay_ms = {}) {
    GoodScript script;
    for (const gate::Case& one : recipe.cases) {
      const bool listed = std::find(one.gates.begin(), one.gates.end(), gate) != one.gates.end();
      script.add(one, listed ? change : Change(), delay_ms);
    }
    return script;
  }

  /// What needs more of the prompt comes first. `rest` is what any other request is answered.
  std::string text(const std::string& rest = {}) const {
    std::vector<Entry> sorted = entries_;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Entry& a, const Entry& b) { return a.said.size() > b.said.size(); });
    std::string text;
    for (const Entry& entry : sorted) {
      const Json chunk = {{"text", entry.answer}, {"delay_ms", entry.delay_ms}};
      text += gate::dump({{"match", {{"contains", entry.said}}}, {"chunks", {chunk}}}) + "\n";
    }
    if (!rest.empty()) text += gate::dump({{"chunks", {{{"text", rest}}}}}) + "\n";
    return text;
  }

 private:
  struct Entry {
    std::vector<std::string>
        said;  // must stand in the prompt: everything that was said and answered in the turns so far
    std::string answer;
    int64_t delay_ms = 0;
  };

  // What a model writes for a message, in the Hermes dialect.
  static std::string written(const gate::GoodMessage& message) {
    std::string text = message.text;
    for (const auto& [name, arguments] : message.calls) {
      text += (text.empty() ? "" : "\n") +
              fmt::format("<tool_call>\n{}\n</tool_call>", gate::dump({{"name", name}, {"arguments", arguments}}));
    }
    return text;
  }

  void add(const gate::Case& one, const Change& change, const std::function<int64_t(size_t turn)>& delay_ms) {
    std::vector<std::string> said;
    if (!one.history.empty()) said.push_back(one.history.back()["content"].get<std::string>());
    for (size_t t = 0; t < one.turns.size(); ++t) {
      const gate::Turn& turn = one.turns[t];
      Messages messages = turn.good;
      if (change) change(one, t, messages);
      gate::MockTools tools(turn.mocks);
      const std::string user = "<|im_start|>user\n" + turn.user + "<|im_end|>";
      said.push_back(user);
      for (size_t m = 0; m < messages.size(); ++m) {
        const gate::GoodMessage& message = messages[m];
        // After the first message of a turn the prompt holds it, too.
        if (m == 1) said.push_back(user + "\n<|im_start|>assistant\n" + written(messages[0]).substr(0, 11));
        entries_.push_back({said, written(message), delay_ms ? delay_ms(t) : 0});
        for (const auto& [name, arguments] : message.calls) {
          const gate::Mock* mock = tools.answer({.id = "", .name = name, .arguments = gate::dump(arguments)}).value();
          said.push_back("<tool_response>\n" + (mock == nullptr ? gate::MockTools::kNotFound : mock->result));
        }
      }
    }
  }

  std::vector<Entry> entries_;
};

}  // namespace nibble::test
