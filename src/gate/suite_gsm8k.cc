// GSM8K (K. Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021): {"question", "answer"} a line, the
// right number behind the last "#### " of the answer.
#include "gate/decimal.h"
#include "gate/suite_loader.h"

namespace nibble::gate {
namespace {

constexpr size_t kPublished = 1319;
constexpr std::string_view kFiles[] = {"test.jsonl", "gsm8k_test.jsonl", "gsm8k.jsonl"};
constexpr std::string_view kMark = "####";
constexpr const char* kSystem =
    "Solve the problem step by step. Then end your reply with the result, as a number in digits.";

}  // namespace

Status load_gsm8k(SuiteLoader& loader) {
  NIBBLE_TRY(file, loader.first_of(kFiles));
  loader.add_gate("reasoning");
  size_t count = 0;
  NIBBLE_RETURN_IF_ERROR(loader.for_each_object(file, [&](const Json& object, const std::string& where) -> Status {
    NIBBLE_TRY(question, text_member(object, "question", where));
    NIBBLE_TRY(answer, text_member(object, "answer", where));
    const size_t mark = answer.rfind(kMark);
    const auto gold = mark == std::string::npos ? std::nullopt : whole_decimal(answer.substr(mark + kMark.size()));
    if (!gold) return corrupt("{}: answer: expected a number behind the last {}, got none", where, kMark);
    Case one;
    one.id = fmt::format("gsm8k_{}", ++count);
    one.category = "gsm8k";
    one.gates = {"reasoning"};
    one.system = kSystem;
    Turn& turn = one.turns.emplace_back();
    turn.user = question;
    turn.expect.last_number = *gold;
    return loader.add_case(std::move(one), where);
  }));
  loader.compare_count("gsm8k", count, kPublished);
  return {};
}

}  // namespace nibble::gate
