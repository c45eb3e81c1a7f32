// Rules about config.json and generation_config.json. What each is about says rule_table.h.
#pragma once

#include "checkpoint/doctor/rule.h"

namespace nibble::checkpoint::doctor {

NIBBLE_DOCTOR_RULE(ModelType);
NIBBLE_DOCTOR_RULE(Architectures);
NIBBLE_DOCTOR_RULE(TextForm);
NIBBLE_DOCTOR_RULE(RopeParameters);
NIBBLE_DOCTOR_RULE(TiedFlags);
NIBBLE_DOCTOR_RULE(DtypeSpelling);
NIBBLE_DOCTOR_RULE(LayerTypes);
NIBBLE_DOCTOR_RULE(StateDtype);
NIBBLE_DOCTOR_RULE(StopIds);
NIBBLE_DOCTOR_RULE(DraftHead);
NIBBLE_DOCTOR_RULE(VisionTokens);
NIBBLE_DOCTOR_RULE(VisionConfig);

struct RoundedDecay {
  static Findings check(const Folder&, Asked);
};
struct HalfPrecision {
  static Findings check(const Folder&, Asked);
};

/// Whether the folder is of this family at all, as far as its keys and tensors show, and dense.
bool is_family(const Folder& folder);

}  // namespace nibble::checkpoint::doctor
