// Rules about what the config files say of quantized modules, and what stands in the files.
#pragma once

#include "checkpoint/doctor/rule.h"

namespace nibble::checkpoint::doctor {

NIBBLE_DOCTOR_RULE(NestedQuantization);
NIBBLE_DOCTOR_RULE(QuantizedButIgnored);
NIBBLE_DOCTOR_RULE(Unclaimed);
NIBBLE_DOCTOR_RULE(DraftHeadListed);
NIBBLE_DOCTOR_RULE(HfQuantConfig);
NIBBLE_DOCTOR_RULE(FusedScales);
NIBBLE_DOCTOR_RULE(ScalarShapes);
NIBBLE_DOCTOR_RULE(InputScaleDtype);

struct UnreadableQuantization {
  static Findings check(const Folder&, Asked);
};
struct FusedFormats {
  static Findings check(const Folder&, Asked);
};
struct InputFactors {
  static Findings check(const Folder&, Asked);
};
struct LayoutOfReader {
  static Findings check(const Folder&, Asked);
};
/// In a folder with NVFP4: linears in another format that make up a tenth or more of the bytes that a token reads.
struct SlowFormats {
  static Findings check(const Folder&, Asked);
};
struct WideDtype {
  static Findings check(const Folder&, Asked);
};

}  // namespace nibble::checkpoint::doctor
