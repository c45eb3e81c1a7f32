// IFEval: {"key", "prompt", "instruction_id_list": [types], "kwargs": [arguments of each]} a line (gate/ifeval.h).
#include "gate/chat_stream.h"
#include "gate/ifeval.h"
#include "gate/suite_loader.h"

namespace nibble::gate {
namespace {

constexpr size_t kPublished = 541;
constexpr std::string_view kFiles[] = {"input_data.jsonl", "ifeval_input_data.jsonl", "ifeval.jsonl"};
constexpr const char* kGates[] = {"ifeval_prompt_strict", "ifeval_instruction_strict", "ifeval_prompt_loose",
                                  "ifeval_instruction_loose"};

Result<Case> read_prompt(const Json& object, const std::string& where) {
  Case one;
  const Json& key = member(object, "key");
  if (!key.is_number_integer() && !key.is_string()) {
    return corrupt("{}: key: expected a whole number or a text, got {}", where, key.type_name());
  }
  one.id = "ifeval_" + (key.is_string() ? key.get<std::string>() : key.dump());
  NIBBLE_TRY(prompt, text_member(object, "prompt", where));
  NIBBLE_TRY(types, list_member(object, "instruction_id_list", where));
  NIBBLE_TRY(arguments, list_member(object, "kwargs", where));
  if (types->empty() || types->size() != arguments->size()) {
    return corrupt("{}: expected as many kwargs as instructions, at least one, got {} and {}", where, arguments->size(),
                   types->size());
  }
  Turn& turn = one.turns.emplace_back();
  turn.user = prompt;
  for (size_t i = 0; i < types->size(); ++i) {
    const Json& id = (*types)[i];
    if (!id.is_string()) return corrupt("{}: instruction_id_list: expected texts, got {}", where, id.type_name());
    NIBBLE_TRY(instruction, Instruction::parse(id.get<std::string>(), (*arguments)[i], where));
    one.tags.push_back(instruction.id());
    turn.expect.instructions.push_back(std::move(instruction));
  }
  const size_t count = turn.expect.instructions.size();
  one.category = fmt::format("{} instruction{}", count, count == 1 ? "" : "s");
  one.gates.assign(std::begin(kGates), std::end(kGates));
  return one;
}

}  // namespace

Status load_ifeval(SuiteLoader& loader) {
  NIBBLE_TRY(file, loader.first_of(kFiles));
  for (const char* gate : kGates) loader.add_gate(gate);
  size_t count = 0;
  NIBBLE_RETURN_IF_ERROR(loader.for_each_object(file, [&](const Json& object, const std::string& where) -> Status {
    NIBBLE_TRY(one, read_prompt(object, where));
    ++count;
    return loader.add_case(std::move(one), where);
  }));
  loader.compare_count("ifeval", count, kPublished);
  return {};
}

}  // namespace nibble::gate
