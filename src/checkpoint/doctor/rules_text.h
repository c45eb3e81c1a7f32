// Rules about the tokenizer, the chat template and the processors of images and videos.
#pragma once

#include "checkpoint/doctor/rule.h"

namespace nibble::checkpoint::doctor {

NIBBLE_DOCTOR_RULE(TokenizerClass);
NIBBLE_DOCTOR_RULE(SplitRegex);
NIBBLE_DOCTOR_RULE(ExtraTokens);
NIBBLE_DOCTOR_RULE(TemplatePlaces);
NIBBLE_DOCTOR_RULE(MissingProcessors);
NIBBLE_DOCTOR_RULE(Qwen2Processors);
NIBBLE_DOCTOR_RULE(ProcessorClass);
NIBBLE_DOCTOR_RULE(ImageProcessorType);
NIBBLE_DOCTOR_RULE(VideoProcessorType);

struct TokenizerFiles {
  static Findings check(const Folder&, Asked);
};
struct TemplateDialect {
  static Findings check(const Folder&, Asked);
};

}  // namespace nibble::checkpoint::doctor
