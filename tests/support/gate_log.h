// For tests: records of a run that nobody played, as they come back from its log.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <optional>
#include <vector>

#include "gate/chat_stream.h"
#include "gate/runner.h"

namespace nibble::test {

/// A play of one turn and one message that is a text.
inline gate::CaseRecord played(const gate::Case& one, bool passes, std::string reply, std::string user = "u") {
  gate::CaseRecord record;
  record.key = record.id = one.id;
  record.category = one.category;
  record.gates = one.gates;
  gate::PlayedTurn& turn = record.turns.emplace_back();
  turn.user = std::move(user);
  gate::PlayedMessage& message = turn.messages.emplace_back();
  message.said.reply.content = std::move(reply);
  message.said.finish = "stop";
  message.said.times.first_answer_ms = 100;
  message.said.times.end_ms = 300;
  if (!passes) turn.failures.push_back({"must", "expected x"});
  return record;
}

/// The records of a log that holds `play` of each of these cases, in this order. A case of the recipe that is not there
/// is asked of nobody and becomes an error of the server.
inline gate::Records logged(const Path& log, const gate::Recipe& recipe, const std::vector<const gate::Case*>& cases,
                            const std::function<gate::CaseRecord(const gate::Case&)>& play) {
  gate::Side side;
  side.log = log;
  side.endpoint.url = "http://127.0.0.1:9";
  side.endpoint.model = "nobody";
  side.endpoint.retries = 0;
  side.endpoint.cancel.cancel();
  EXPECT_EQ(gate::play_recipe(recipe, side, {}).status().code(), Code::cancelled);
  std::ofstream out(log, std::ios::app | std::ios::binary);
  for (const gate::Case* one : cases) out << gate::dump(gate::to_json(play(*one))) << "\n";
  out.close();
  side.endpoint.cancel = CancelToken();
  auto records = gate::play_recipe(recipe, side, {.resume = true});
  EXPECT_TRUE(records.ok()) << records.status().text();
  return std::move(records).value();
}

inline std::vector<const gate::Case*> all_of(const gate::Recipe& recipe) {
  std::vector<const gate::Case*> cases;
  for (const gate::Case& one : recipe.cases) cases.push_back(&one);
  return cases;
}

}  // namespace nibble::test
