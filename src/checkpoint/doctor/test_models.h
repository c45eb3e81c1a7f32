// Folders that the tests of the doctor begin with, and what they ask of its answers.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/doctor/doctor.h"
#include "checkpoint/test_folder.h"

namespace nibble::checkpoint::doctor {

using checkpoint::testing::Blob;
using checkpoint::testing::TestCheckpoint;

inline const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";
constexpr Asked kNobody{};

/// Every file of a folder by its name, as a digest.
std::map<std::string, std::string> digests(const Path& folder);
/// Changes one of a model's JSON files.
void edit_file(TestCheckpoint& model, const std::string& file, const std::function<void(Json&)>& edit);
void rename_tensors(TestCheckpoint& model, const std::string& from, const std::string& to);

/// A text-only folder with everything beside the weights that a model needs; the words of tiny-voice.
TestCheckpoint text_model(TestCheckpoint model = TestCheckpoint::micro());
/// The wrapped form, with nothing that any rule would complain of for vLLM.
TestCheckpoint wrapped_model(TestCheckpoint base = TestCheckpoint::micro());
/// One scale in each group, so that it is sound for servers.
TestCheckpoint quantized_model(const std::string& algo = "W4A16_NVFP4");
/// The same in the compressed-tensors layout, with rounded inputs.
TestCheckpoint compressed_model();

/// Where a table needs functions without arguments: models with a vocabulary, of those forms.
TestCheckpoint wrapped();
TestCheckpoint plain_text();
TestCheckpoint quantized();
TestCheckpoint wrapped_quantized();
TestCheckpoint compressed();

/// What the doctor says of a folder, and a rule's part of that, or null.
Report look(const Path& folder, Asked asked = {});
const RuleFinding* find(const Report& report, std::string_view id);
std::string text_of(const Report& report);

std::vector<float> logits_of(const Path& folder);

}  // namespace nibble::checkpoint::doctor
