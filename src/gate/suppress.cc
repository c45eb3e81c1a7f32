#include "gate/suppress.h"

#include "io/jsonl.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

void excuse(const Suppression& suppression, std::vector<Anomaly>& anomalies) {
  for (Anomaly& anomaly : anomalies) {
    if (anomaly.id == suppression.detector || anomaly.family() == suppression.detector) {
      anomaly.suppressed = suppression.reason;
    }
  }
}

}  // namespace

Result<std::vector<Suppression>> read_suppressions(const Path& file) {
  std::vector<Suppression> suppressions;
  NIBBLE_RETURN_IF_ERROR(for_each_json_line(file, [&](Json& line, int64_t number) {
    ObjectReader reader(line, fmt::format("{}:{}", file.string(), number));
    Suppression& suppression = suppressions.emplace_back();
    for (const char* key : {"case", "detector", "reason"}) reader.require(key);
    reader.text("case", suppression.case_id);
    reader.text("detector", suppression.detector);
    reader.text("reason", suppression.reason);
    return reader.finish();
  }));
  return suppressions;
}

void suppress(std::span<const Suppression> suppressions, CaseRecord& record) {
  for (const Suppression& suppression : suppressions) {
    if (suppression.case_id != record.id) continue;
    for (PlayedTurn& turn : record.turns) {
      excuse(suppression, turn.anomalies);
      for (PlayedMessage& message : turn.messages) excuse(suppression, message.anomalies);
    }
  }
}

}  // namespace nibble::gate
