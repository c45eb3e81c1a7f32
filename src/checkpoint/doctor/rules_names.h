// Rules about the names of tensors, and about the lists in the config files that name modules.
#pragma once

#include "checkpoint/doctor/rule.h"

namespace nibble::checkpoint::doctor {

NIBBLE_DOCTOR_RULE(RepeatedPrefix);
NIBBLE_DOCTOR_RULE(TensorPrefix);
NIBBLE_DOCTOR_RULE(ListedNames);

}  // namespace nibble::checkpoint::doctor
