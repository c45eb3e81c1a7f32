#include "checkpoint/doctor/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <set>

#include "base/sha256.h"
#include "checkpoint/doctor/released.h"
#include "checkpoint/doctor/rule_table.h"
#include "checkpoint/fused_linears.h"
#include "checkpoint/test_folder.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint::doctor {
namespace {

using checkpoint::testing::Blob;
using checkpoint::testing::TestCheckpoint;
using test::TemporaryFolder;

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

std::string slurp(const Path& file) {
  Result<std::string> text = read_file(file);
  EXPECT_TRUE(text.ok()) << text.status().text();
  return text.ok() ? *text : std::string();
}

// Every file of a folder by its name, as a digest.
std::map<std::string, std::string> digests(const Path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) out[entry.path().lexically_relative(folder)] = sha256_of(slurp(entry.path()));
  }
  return out;
}

Json edited(const std::string& text, const std::function<void(Json&)>& edit) {
  Json json = *parse_json(text, "test");
  edit(json);
  return json;
}

void edit_file(TestCheckpoint& model, const std::string& file, const std::function<void(Json&)>& edit) {
  model.files[file] = edited(model.files[file], edit).dump(1);
}

void rename_tensors(TestCheckpoint& model, const std::string& from, const std::string& to) {
  std::map<std::string, Blob> tensors;
  for (auto& [name, blob] : model.tensors) {
    tensors[name.starts_with(from) ? to + name.substr(from.size()) : name] = std::move(blob);
  }
  model.tensors = std::move(tensors);
}

// A text-only folder with everything beside the weights that a model needs; the words of tiny-voice.
TestCheckpoint text_model(TestCheckpoint model = TestCheckpoint::micro()) {
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    model.files[file] = slurp(kTinyVoice / file);
  }
  model.config["eos_token_id"] = 1556;
  model.files["generation_config.json"] = R"({"eos_token_id": [1556, 1554]})";
  return model;
}

// The wrapped form, with nothing that any rule would complain of for vLLM.
TestCheckpoint wrapped_model(TestCheckpoint base = TestCheckpoint::micro()) {
  TestCheckpoint model = text_model(std::move(base));
  Json text = model.config;
  Json config = {{"architectures", {"Qwen3_5ForConditionalGeneration"}}, {"model_type", "qwen3_5"}};
  if (text.contains("quantization_config")) config["quantization_config"] = text["quantization_config"];
  text.erase("quantization_config");
  text.erase("architectures");
  text["model_type"] = "qwen3_5_text";
  text["mamba_ssm_dtype"] = "float32";
  config["tie_word_embeddings"] = text["tie_word_embeddings"];
  config["text_config"] = text;
  config["vision_config"] = released_vision_config(text["hidden_size"].get<int64_t>());
  for (const SpecialToken& token : kVisionTokens) config[token.key] = token.id;
  model.config = config;
  edit_file(model, "tokenizer_config.json", [](Json& json) { json["tokenizer_class"] = "Qwen2Tokenizer"; });
  model.files["preprocessor_config.json"] = released_preprocessor().dump();
  model.files["video_preprocessor_config.json"] = released_video_preprocessor().dump();
  rename_tensors(model, "model.", "model.language_model.");
  return model;
}

// One scale in each group, so that it is sound for servers.
TestCheckpoint quantized_model(const std::string& algo = "W4A16_NVFP4") {
  TestCheckpoint model = TestCheckpoint::micro_nvfp4(algo);
  const float scale = 0.001f;
  for (auto& [name, blob] : model.tensors) {
    if (name.ends_with(".weight_scale_2")) blob.bytes.assign(reinterpret_cast<const char*>(&scale), sizeof scale);
  }
  Json hf = {{"producer", {{"name", "modelopt"}, {"version", "0.47.0"}}},
             {"quantization",
              {{"quant_algo", algo},
               {"kv_cache_quant_algo", nullptr},
               {"group_size", 16},
               {"exclude_modules", model.config["quantization_config"]["ignore"]}}}};
  model.files["hf_quant_config.json"] = hf.dump();
  return model;
}

// The same in the compressed-tensors layout, with rounded inputs.
TestCheckpoint compressed_model() {
  TestCheckpoint model = quantized_model("NVFP4");
  model.files.erase("hf_quant_config.json");
  std::map<std::string, Blob> tensors;
  const auto reciprocal = [](Blob blob) {
    float value;
    std::memcpy(&value, blob.bytes.data(), sizeof value);
    value = 1 / value;
    return Blob{"F32", {1}, std::string(reinterpret_cast<const char*>(&value), sizeof value)};
  };
  for (const auto& [name, blob] : model.tensors) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (blob.dtype == "U8") {
      tensors[module + ".weight_packed"] = blob;
    } else if (name.ends_with(".weight_scale_2")) {
      tensors[module + ".weight_global_scale"] = reciprocal(blob);
    } else if (name.ends_with(".input_scale")) {
      tensors[module + ".input_global_scale"] = reciprocal(blob);
    } else {
      tensors[name] = blob;
    }
  }
  model.tensors = std::move(tensors);
  Json four = {{"num_bits", 4},     {"type", "float"},  {"strategy", "tensor_group"},
               {"symmetric", true}, {"dynamic", false}, {"group_size", 16}};
  Json inputs = four;
  inputs["dynamic"] = "local";
  inputs["scale_dtype"] = "torch.float8_e4m3fn";
  model.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "nvfp4-pack-quantized"},
      {"quantization_status", "compressed"},
      {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", four}, {"input_activations", inputs}}}}},
      {"ignore", {"lm_head", R"(re:.*in_proj_[ab]$)"}}};
  return model;
}

const RuleFinding* find(const Report& report, std::string_view id) {
  for (const RuleFinding& finding : report.findings) {
    if (finding.rule->id == id) return &finding;
  }
  return nullptr;
}

std::string text_of(const Report& report) {
  std::string out;
  for (const RuleFinding& finding : report.findings) {
    out +=
        fmt::format("\n  {} {} {}: {} = {}: {}", name(finding.level), finding.rule->id, finding.finding.evidence.file,
                    finding.finding.evidence.field, finding.finding.evidence.value, finding.finding.failure);
  }
  return out;
}

Report look(const Path& folder, Asked asked = {}) {
  Result<Report> report = examine(folder, asked);
  EXPECT_TRUE(report.ok()) << report.status().text();
  return report.ok() ? *report : Report{};
}

std::vector<float> logits_of(const Path& folder) {
  const Result<LoadedModel> model = load_checkpoint(folder, {});
  EXPECT_TRUE(model.ok()) << model.status().text();
  return model.ok() ? checkpoint::testing::logits(*model) : std::vector<float>();
}

TEST(Doctor, AFolderWithoutFaultsIsLeftAsItIs) {
  TemporaryFolder scratch;
  std::filesystem::create_directory(scratch / "extra");
  wrapped_model().write(scratch / "model");
  std::filesystem::create_directory(scratch / "model/figures");
  checkpoint::testing::write_plain(scratch / "model/figures/plot.txt", "kept");
  const Report report = look(scratch / "model", Reader::vllm);
  EXPECT_EQ(report.count(Level::error) + report.count(Level::warning), 0u) << text_of(report);

  const auto before = digests(scratch / "model");
  const Result<Repaired> repaired = repair(scratch / "model", scratch / "out", Reader::vllm);
  ASSERT_TRUE(repaired.ok()) << repaired.status().text();
  EXPECT_TRUE(repaired->rules.empty());
  EXPECT_EQ(digests(scratch / "out"), before);
  EXPECT_EQ(digests(scratch / "model"), before);
}

TEST(Doctor, TinyVoiceIsSound) {
  const Report report = look(kTinyVoice);
  EXPECT_EQ(report.count(Level::error), 0u) << text_of(report);
  EXPECT_NE(find(report, "D8"), nullptr);  // TokenizersBackend: a warning, as only some readers lack it
  EXPECT_EQ(find(report, "D8")->level, Level::warning);
  for (const RuleFinding& finding : report.findings) EXPECT_FALSE(finding.repaired) << finding.rule->id;
  TemporaryFolder scratch;
  ASSERT_TRUE(repair(kTinyVoice, scratch / "out").ok());
  EXPECT_EQ(digests(scratch / "out"), digests(kTinyVoice));
}

// Writers save the head of a tied model as a second copy of the embedding: nothing to say.
TEST(Doctor, ATiedHeadMayStandInTheFilesTwice) {
  TestCheckpoint model = wrapped_model(TestCheckpoint::micro("micro_tied"));
  model.tensors["lm_head.weight"] = model.tensors.at("model.language_model.embed_tokens.weight");
  TemporaryFolder scratch;
  model.write(scratch / "model");
  const Report report = look(scratch / "model", Reader::vllm);
  EXPECT_EQ(find(report, "D6"), nullptr) << text_of(report);
}

TEST(Doctor, TheOutputIsNeverTheInput) {
  TemporaryFolder scratch;
  wrapped_model().write(scratch / "model");
  const auto before = digests(scratch / "model");
  EXPECT_EQ(repair(scratch / "model", scratch / "model").status().code(), Code::invalid_argument);
  EXPECT_EQ(repair(scratch / "model", scratch / "model/inside").status().code(), Code::invalid_argument);
  EXPECT_EQ(digests(scratch / "model"), before);
  EXPECT_EQ(examine(scratch / "nowhere").status().code(), Code::not_found);
}

struct Breakage {
  const char* name;
  const char* rule;
  Asked asked;
  std::function<TestCheckpoint()> start;
  std::function<void(TestCheckpoint&)> apply;
  bool nibble_fails = false;  // its own loader, before the repair
};

void PrintTo(const Breakage& breakage, std::ostream* out) {
  *out << breakage.name;
}

TestCheckpoint wrapped() {
  return wrapped_model();
}
TestCheckpoint plain_text() {
  return text_model();
}
TestCheckpoint quantized() {
  return text_model(quantized_model());
}
TestCheckpoint wrapped_quantized() {
  TestCheckpoint model = wrapped_model(quantized_model());
  return model;
}

TestCheckpoint compressed() {
  return text_model(compressed_model());
}
TestCheckpoint with_draft_head() {
  TestCheckpoint model = wrapped_quantized();
  model.config["quantization_config"]["ignore"].push_back("mtp*");
  edit_file(model, "hf_quant_config.json",
            [](Json& json) { json["quantization"]["exclude_modules"].push_back("mtp*"); });
  model.tensors["mtp.fc.weight"] = {"BF16", {64, 128}, std::string(2 * 64 * 128, '\0')};
  return model;
}

constexpr Asked kNobody{};
const std::string kUp = "model.layers.0.mlp.up_proj";

const Breakage kBreakages[] = {
    {"model_type", "D21", kNobody, wrapped, [](auto& m) { m.config["model_type"] = "qwen2_5_vl"; }, true},
    {"model_type_of_text", "D21", kNobody, plain_text, [](auto& m) { m.config["model_type"] = "qwen3_next"; }, true},
    {"text_type_at_the_root", "D21", kNobody, wrapped, [](auto& m) { m.config["model_type"] = "qwen3_5_text"; }},
    {"inner_model_type", "D21", kNobody, wrapped, [](auto& m) { m.config["text_config"].erase("model_type"); }},
    {"architectures", "D22", kNobody, wrapped, [](auto& m) { m.config["architectures"] = {"Qwen3_5ForCausalLM"}; }},
    {"no_architectures", "D22", kNobody, plain_text, [](auto& m) { m.config.erase("architectures"); }},
    {"renamed_to_qwen2_vl", "D22", kNobody, wrapped,
     [](auto& m) { m.config["architectures"] = {"Qwen2VLForConditionalGeneration"}; }},
    {"text_form_for_vllm", "D1", Reader::vllm, plain_text, [](auto&) {}},
    {"text_form_quantized_for_sglang", "D1", Reader::sglang, quantized, [](auto&) {}},
    {"vision_config", "D36", Reader::vllm, wrapped, [](auto& m) { m.config.erase("vision_config"); }},
    {"vision_width", "D36", Reader::vllm, wrapped,
     [](auto& m) { m.config["vision_config"]["out_hidden_size"] = 3584; }},
    {"image_token", "D34", Reader::sglang, wrapped, [](auto& m) { m.config["image_token_id"] = 151655; }},
    {"vision_tokens", "D34", kNobody, wrapped, [](auto& m) { m.config.erase("vision_end_token_id"); }},
    {"doubled_prefix", "D4", kNobody, wrapped,
     [](auto& m) { rename_tensors(m, "model.language_model.", "model.language_model.language_model."); }, true},
    {"prefix_of_vllm", "D4", kNobody, wrapped,
     [](auto& m) { rename_tensors(m, "model.language_model.", "language_model.model."); }, true},
    {"wrapped_config_text_tensors", "D2", kNobody, wrapped,
     [](auto& m) { rename_tensors(m, "model.language_model.", "model."); }},
    {"text_config_wrapped_tensors", "D2", kNobody, plain_text,
     [](auto& m) { rename_tensors(m, "model.", "model.language_model."); }},
    {"rope_parameters", "D5", kNobody, wrapped,
     [](auto& m) {
       Json& text = m.config["text_config"];
       text["rope_theta"] = text["rope_parameters"]["rope_theta"];
       text.erase("rope_parameters");
     }},
    {"mrope_section", "D5", Reader::vllm, wrapped,
     [](auto& m) { m.config["text_config"]["rope_parameters"].erase("mrope_section"); }},
    {"tie_at_the_root", "D6", kNobody, wrapped, [](auto& m) { m.config.erase("tie_word_embeddings"); }},
    {"tie_inside", "D6", Reader::transformers4, wrapped,
     [](auto& m) { m.config["text_config"].erase("tie_word_embeddings"); }},
    {"tied_with_another_head", "D6", kNobody, wrapped,
     [](auto& m) {
       m.config["tie_word_embeddings"] = true;
       m.config["text_config"]["tie_word_embeddings"] = true;
     }},
    {"untied_without_head", "D6", kNobody, [] { return text_model(TestCheckpoint::micro("micro_tied")); },
     [](auto& m) { m.config["tie_word_embeddings"] = false; }, true},
    {"dtype", "D7", Reader::transformers4, wrapped, [](auto&) {}},
    {"layer_types", "D15", kNobody, wrapped, [](auto& m) { m.config["text_config"].erase("layer_types"); }},
    {"state_dtype", "D16", Reader::vllm, wrapped,
     [](auto& m) { m.config["text_config"]["mamba_ssm_dtype"] = "bfloat16"; }},
    {"stop_ids", "D12", kNobody, wrapped,
     [](auto& m) { m.files["generation_config.json"] = R"({"eos_token_id": 1556})"; }},
    {"no_generation_config", "D12", kNobody, wrapped, [](auto& m) { m.files.erase("generation_config.json"); }},
    {"dropped_draft_head", "D13", kNobody, wrapped,
     [](auto& m) { m.config["text_config"]["mtp_num_hidden_layers"] = 1; }},
    {"nested_quantization", "D35", kNobody, wrapped_quantized,
     [](auto& m) {
       m.config["text_config"]["quantization_config"] = m.config["quantization_config"];
       m.config.erase("quantization_config");
     }},
    {"names_of_the_other_form", "D3", kNobody, wrapped_quantized,
     [](auto& m) {
       m.config["quantization_config"]["ignore"].push_back("model.layers.0.linear_attn.conv1d");
       edit_file(m, "hf_quant_config.json", [](Json& json) {
         json["quantization"]["exclude_modules"].push_back("model.layers.0.linear_attn.conv1d");
       });
     }},
    {"quantized_and_ignored", "D27", kNobody, quantized,
     [](auto& m) { m.config["quantization_config"]["ignore"].push_back("*mlp.up_proj"); }, true},
    {"not_listed", "D31", kNobody, quantized,
     [](auto& m) {
       m.config["quantization_config"]["ignore"] = {"lm_head", "*linear_attn.in_proj_a", "*conv1d"};
       edit_file(m, "hf_quant_config.json", [](Json& json) { json["quantization"]["exclude_modules"] = {"lm_head"}; });
     },
     true},
    {"no_hf_quant_config", "D30", Reader::trtllm, quantized, [](auto& m) { m.files.erase("hf_quant_config.json"); }},
    {"missing_group_size", "D30", Reader::vllm, wrapped_quantized,
     [](auto& m) {
       edit_file(m, "hf_quant_config.json", [](Json& json) { json["quantization"].erase("group_size"); });
     }},
    {"hf_quant_config_alone", "D30", kNobody, quantized, [](auto& m) { m.config.erase("quantization_config"); }},
    {"unlisted_draft_head", "D18", Reader::vllm, with_draft_head,
     [](auto& m) {
       m.config["quantization_config"]["ignore"].erase(m.config["quantization_config"]["ignore"].size() - 1);
       edit_file(m, "hf_quant_config.json", [](Json& json) {
         Json& list = json["quantization"]["exclude_modules"];
         list.erase(list.size() - 1);
       });
     }},
    {"scales_without_dimension", "D32", kNobody, compressed,
     [](auto& m) {
       for (auto& [name, blob] : m.tensors) {
         if (name.ends_with("global_scale")) blob.shape.clear();
       }
     },
     true},
    {"inputs_without_scale_dtype", "D41", kNobody, compressed,
     [](auto& m) {
       m.config["quantization_config"]["config_groups"]["group_0"]["input_activations"].erase("scale_dtype");
     }},
    {"expression_of_the_other_form", "D3", kNobody, compressed,
     [](auto& m) {
       m.config["quantization_config"]["ignore"] = {
           "lm_head", R"(re:^model\.language_model\.layers\.\d+\.linear_attn\.in_proj_[ab]$)"};
     },
     true},
    {"quantized_head_and_ignored", "D27", kNobody,
     [] {
       TestCheckpoint model = quantized_model();
       const TestCheckpoint other = TestCheckpoint::micro_nvfp4();
       // Codes for the head: 160 rows of 64 columns, as gate_proj has 96.
       model.tensors["lm_head.weight"] = {"U8", {160, 32}, std::string(160 * 32, '\x21')};
       model.tensors["lm_head.weight_scale"] = {"F8_E4M3", {160, 4}, std::string(160 * 4, '\x38')};
       model.tensors["lm_head.weight_scale_2"] = model.tensors["model.layers.0.mlp.up_proj.weight_scale_2"];
       Json& ignore = model.config["quantization_config"]["ignore"];
       ignore.erase(0);
       edit_file(model, "hf_quant_config.json", [&](Json& json) { json["quantization"]["exclude_modules"] = ignore; });
       return text_model(std::move(model));
     },
     [](auto& m) {
       m.config["quantization_config"]["ignore"].push_back("lm_head*");
       edit_file(m, "hf_quant_config.json",
                 [](Json& json) { json["quantization"]["exclude_modules"].push_back("lm_head*"); });
     },
     true},
    {"tokenizers_backend", "D8", Reader::vllm, wrapped,
     [](auto& m) {
       edit_file(m, "tokenizer_config.json", [](Json& json) { json["tokenizer_class"] = "TokenizersBackend"; });
     }},
    {"tokenizer_class_of_old_readers", "D8", Reader::transformers5, wrapped, [](auto&) {}},
    {"tokenizer_class_of_llama", "D8", Reader::sglang, wrapped,
     [](auto& m) {
       edit_file(m, "tokenizer_config.json", [](Json& json) { json["tokenizer_class"] = "LlamaTokenizer"; });
     }},
    {"pattern_of_qwen2", "D9", kNobody, wrapped,
     [](auto& m) {
       std::string& text = m.files["tokenizer.json"];
       const std::string from = Json(kFamilyPattern).dump();
       text.replace(text.find(from), from.size(), Json(kQwen2Pattern).dump());
     }},
    {"list_of_extra_tokens", "D10", kNobody, wrapped,
     [](auto& m) {
       edit_file(m, "tokenizer_config.json", [](Json& json) { json["extra_special_tokens"] = {"<|im_end|>"}; });
     }},
    {"two_templates", "D19", kNobody, wrapped,
     [](auto& m) {
       edit_file(m, "tokenizer_config.json", [](Json& json) { json["chat_template"] = "{{ messages[0].content }}"; });
     }},
    {"template_in_one_place", "D19", Reader::transformers4, wrapped, [](auto&) {}},
    {"no_preprocessor", "D11", kNobody, wrapped, [](auto& m) { m.files.erase("preprocessor_config.json"); }},
    {"no_video_preprocessor", "D11", Reader::vllm, wrapped,
     [](auto& m) { m.files.erase("video_preprocessor_config.json"); }},
    {"processors_of_qwen2_vl", "D23", kNobody, wrapped,
     [](auto& m) {
       edit_file(m, "preprocessor_config.json", [](Json& json) {
         json["processor_class"] = "Qwen2VLProcessor";
         json["patch_size"] = 14;
       });
     }},
    {"processor_class", "D24", Reader::vllm, wrapped,
     [](auto& m) {
       edit_file(m, "preprocessor_config.json", [](Json& json) { json["processor_class"] = "Qwen3_5Processor"; });
     }},
    {"image_processor_type", "D25", Reader::vllm, wrapped,
     [](auto& m) { edit_file(m, "preprocessor_config.json", [](Json& json) { json.erase("image_processor_type"); }); }},
    {"video_processor_type", "D42", Reader::vllm, wrapped,
     [](auto& m) {
       edit_file(m, "video_preprocessor_config.json",
                 [](Json& json) { json["video_processor_type"] = "Qwen3_5VideoProcessor"; });
     }},
};

class Breakages : public ::testing::TestWithParam<Breakage> {};

// Found; repaired; the copy loads and computes what the sound folder does; nothing is left for a second repair.
TEST_P(Breakages, IsFoundAndRepaired) {
  const Breakage& breakage = GetParam();
  TemporaryFolder scratch;
  TestCheckpoint model = breakage.start();
  model.write(scratch / "sound");
  breakage.apply(model);
  model.write(scratch / "broken");
  const auto broken = digests(scratch / "broken");

  const Report before = look(scratch / "broken", breakage.asked);
  const RuleFinding* finding = find(before, breakage.rule);
  ASSERT_NE(finding, nullptr) << text_of(before);
  EXPECT_GE(finding->level, Level::warning);
  EXPECT_TRUE(finding->repaired);
  EXPECT_FALSE(finding->finding.evidence.file.empty());
  EXPECT_FALSE(finding->finding.failure.empty());
  EXPECT_FALSE(finding->finding.advice.empty());
  EXPECT_EQ(load_checkpoint(scratch / "broken", {}).ok(), !breakage.nibble_fails);

  const Result<Repaired> repaired = repair(scratch / "broken", scratch / "fixed", breakage.asked);
  ASSERT_TRUE(repaired.ok()) << repaired.status().text();
  EXPECT_EQ(digests(scratch / "broken"), broken) << "the input was changed";
  const Report after = look(scratch / "fixed", breakage.asked);
  EXPECT_EQ(find(after, breakage.rule), nullptr) << text_of(after);
  EXPECT_EQ(after.count(Level::error), 0u) << text_of(after);
  for (const RuleFinding& left : after.findings) EXPECT_FALSE(left.repaired) << text_of(after);
  EXPECT_EQ(logits_of(scratch / "fixed"), logits_of(scratch / "sound"));

  const Result<Repaired> again = repair(scratch / "fixed", scratch / "again", breakage.asked);
  ASSERT_TRUE(again.ok()) << again.status().text();
  EXPECT_TRUE(again->rules.empty());
  EXPECT_EQ(digests(scratch / "again"), digests(scratch / "fixed"));
}

INSTANTIATE_TEST_SUITE_P(Doctor, Breakages, ::testing::ValuesIn(kBreakages),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Doctor, EveryRuleHasAnIdOfItsOwnAndEveryRepairABreakage) {
  std::set<std::string_view> ids, tested = {"D17"};
  for (const Breakage& breakage : kBreakages) tested.insert(breakage.rule);
  for (const Rule& rule : kRules) {
    EXPECT_TRUE(ids.insert(rule.id).second) << rule.id;
    EXPECT_EQ(rule.fix == nullptr, rule.repair == Repair::never) << rule.id;
    EXPECT_FALSE(rule.title.empty() || rule.why.empty()) << rule.id;
    EXPECT_TRUE(rule.fix == nullptr || tested.contains(rule.id)) << rule.id;
  }
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(error);
}

// As a server fuses: the largest scale for all, the codes as they are.
TestCheckpoint fused_by_maximum(TestCheckpoint model) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& [name, blob] : model.tensors) {
    if (name.ends_with(".weight_scale_2")) {
      groups[fused_module(name.substr(0, name.size() - std::string_view(".weight_scale_2").size()))].push_back(name);
    }
  }
  const auto value = [&](const std::string& name) {
    float number;
    std::memcpy(&number, model.tensors[name].bytes.data(), sizeof number);
    return number;
  };
  for (const auto& [group, names] : groups) {
    std::string largest = names.front();
    for (const std::string& name : names) {
      if (value(name) > value(largest)) largest = name;
    }
    for (const std::string& name : names) model.tensors[name] = model.tensors[largest];
  }
  return model;
}

// Unequal scales: what a server makes of the repaired copy is nearer to the model than what it makes of the folder.
TEST(Doctor, UnequalScalesAreEncodedAnew) {
  TemporaryFolder scratch;
  TestCheckpoint model = text_model(TestCheckpoint::micro_nvfp4());
  for (auto& [name, blob] : model.tensors) {
    const bool smaller = name.ends_with("k_proj.weight_scale_2") || name.ends_with("up_proj.weight_scale_2") ||
                         name.ends_with("in_proj_z.weight_scale_2");
    if (!smaller) continue;
    float scale;
    std::memcpy(&scale, blob.bytes.data(), sizeof scale);
    scale *= 0.3f;
    std::memcpy(blob.bytes.data(), &scale, sizeof scale);
  }
  model.write(scratch / "model", 2);
  fused_by_maximum(model).write(scratch / "served");
  const Report report = look(scratch / "model");
  ASSERT_NE(find(report, "D17"), nullptr) << text_of(report);
  EXPECT_EQ(find(report, "D17")->level, Level::warning);
  EXPECT_FALSE(find(report, "D17")->repaired);  // it changes numbers: only for a reader that needs it

  const Result<Repaired> repaired = repair(scratch / "model", scratch / "fixed", Reader::trtllm);
  ASSERT_TRUE(repaired.ok()) << repaired.status().text();
  EXPECT_TRUE(repaired->weights_changed);
  EXPECT_EQ(find(look(scratch / "fixed", Reader::trtllm), "D17"), nullptr);
  const std::vector<float> meant = logits_of(scratch / "model");
  EXPECT_LT(distance(logits_of(scratch / "fixed"), meant), distance(logits_of(scratch / "served"), meant) / 5);
  const Result<Repaired> again = repair(scratch / "fixed", scratch / "again", Reader::trtllm);
  ASSERT_TRUE(again.ok()) << again.status().text();
  EXPECT_TRUE(again->rules.empty());
  EXPECT_EQ(digests(scratch / "again"), digests(scratch / "fixed"));
}

struct Beyond {
  const char* rule;
  Asked asked;
  Level level;
  std::function<TestCheckpoint()> start;
  std::function<void(TestCheckpoint&)> apply;
};

// What no repair helps says so, with a way out.
TEST(Doctor, FindsWhatItCannotRepair) {
  const Beyond cases[] = {
      {"D14", kNobody, Level::note, wrapped,
       [](auto& m) {
         Blob& decay = m.tensors["model.language_model.layers.0.linear_attn.A_log"];
         decay = {"BF16", decay.shape, std::string(decay.bytes.size() / 2, '\x3f')};
       }},
      {"D20", kNobody, Level::error, wrapped,
       [](auto& m) {
         m.config["text_config"]["dtype"] = "float16";
         m.config["text_config"]["hidden_size"] = 5120;
       }},
      {"D29", kNobody, Level::error, quantized,
       [](auto& m) { m.config["quantization_config"]["quant_algo"] = "MXFP4"; }},
      {"D29", kNobody, Level::error, quantized,
       [](auto& m) {
         m.config["quantization_config"]["quant_algo"] = "NVFP4_SVD";
         edit_file(m, "hf_quant_config.json", [](Json& json) { json["quantization"]["quant_algo"] = "NVFP4_SVD"; });
       }},
      {"D37", Reader::vllm, Level::error, wrapped_quantized,
       [](auto& m) {
         const std::string up = "model.language_model.layers.0.mlp.up_proj";
         for (const char* suffix : {".weight_scale", ".weight_scale_2"}) m.tensors.erase(up + suffix);
         m.tensors[up + ".weight"] = TestCheckpoint::micro().tensors.at(kUp + ".weight");
         m.config["quantization_config"]["ignore"].push_back(up);
       }},
      {"D28", Reader::vllm, Level::error, quantized,
       [](auto& m) {
         m.config["quantization_config"]["quant_algo"] = "NVFP4_AWQ";
         edit_file(m, "hf_quant_config.json", [](Json& json) { json["quantization"]["quant_algo"] = "NVFP4_AWQ"; });
       }},
      {"D33", Reader::transformers5, Level::error, quantized, [](auto&) {}},
      {"D33", Reader::trtllm, Level::error, compressed, [](auto&) {}},
      {"D38", Reader::compressed_tensors, Level::warning, compressed, [](auto&) {}},  // micro is F32
      {"D39", kNobody, Level::warning, wrapped, [](auto& m) { m.files.erase("tokenizer.json"); }},
      {"D39", kNobody, Level::warning, wrapped, [](auto& m) { m.files["tokenizer.json"] = "{"; }},
      {"D26", kNobody, Level::note, wrapped, [](auto&) {}},  // tiny-voice speaks Hermes
      {"D26", kNobody, Level::warning, wrapped,
       [](auto& m) { m.files["chat_template.jinja"] += "{# <function=name> #}"; }},
      {"D26", kNobody, Level::error, wrapped, [](auto& m) { m.files["chat_template.jinja"] = "{% if %}"; }},
      {"D19", kNobody, Level::warning, wrapped, [](auto& m) { m.files.erase("chat_template.jinja"); }},
      {"D21", kNobody, Level::error, wrapped,
       [](auto& m) {
         m.config = {{"model_type", "llama"}, {"hidden_size", 64}};
       }},
      {"D0", kNobody, Level::error, wrapped, [](auto& m) { m.files["preprocessor_config.json"] = "[1]"; }},
      {"D40", kNobody, Level::error, wrapped,
       [](auto& m) { m.tensors.erase("model.language_model.layers.0.mlp.up_proj.weight"); }},
  };
  for (const Beyond& one : cases) {
    TemporaryFolder scratch;
    TestCheckpoint model = one.start();
    one.apply(model);
    model.write(scratch / "model");
    const Report report = look(scratch / "model", one.asked);
    const RuleFinding* finding = find(report, one.rule);
    ASSERT_NE(finding, nullptr) << one.rule << text_of(report);
    EXPECT_EQ(finding->level, one.level) << one.rule << text_of(report);
    EXPECT_FALSE(finding->repaired) << one.rule;
    EXPECT_FALSE(finding->finding.advice.empty()) << one.rule;
  }
}

// Layers in BF16 or FP8 that much of a token's bytes lie in are named with their share, where the rest has four bits.
TEST(Doctor, NamesTheSlowLayerFormats) {
  TemporaryFolder scratch;
  const auto slow = [&](TestCheckpoint model) {
    model.write(scratch / "model");
    std::map<std::string, std::string> out;  // which linears: what is said of them
    for (const RuleFinding& finding : look(scratch / "model").findings) {
      if (finding.rule->id != "D43") continue;
      EXPECT_EQ(finding.level, Level::note);
      EXPECT_FALSE(finding.repaired);
      const Evidence& evidence = finding.finding.evidence;
      out[evidence.field] = evidence.value + ": " + finding.finding.failure + ": " + finding.finding.advice;
    }
    return out;
  };
  EXPECT_TRUE(slow(text_model()).empty());  // nothing has four bits

  TestCheckpoint model = quantized();
  uint64_t total = 0;
  for (const auto& [name, blob] : model.tensors) {
    const bool linear = blob.shape.size() == 2 && !name.ends_with("embed_tokens.weight");
    if (linear || name.ends_with("weight_scale_2")) total += blob.bytes.size();
  }
  const uint64_t head = model.tensors.at("lm_head.weight").bytes.size();
  const auto found = slow(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found.begin()->first, "lm_head");
  const double share = 100.0 * static_cast<double>(head) / static_cast<double>(total);
  EXPECT_NE(found.begin()->second.find(fmt::format("{:.0f} % of what decoding reads lies in 1 linear ", share)),
            std::string::npos)
      << found.begin()->second;
  EXPECT_EQ(found.begin()->second.find("--untie"), std::string::npos);

  // Every up_proj of the layers as FP8 has one line.
  size_t layers = 0;
  for (int64_t i = 0;; ++i, ++layers) {
    const std::string up = fmt::format("model.layers.{}.mlp.up_proj", i);
    const auto weight = model.tensors.find(up + ".weight");
    if (weight == model.tensors.end()) break;
    const std::vector<int64_t> shape = {weight->second.shape[0], weight->second.shape[1] * 2};
    weight->second = {"F8_E4M3", shape, std::string(static_cast<size_t>(shape[0] * shape[1]), '\x38')};
    model.tensors.erase(up + ".weight_scale");
    model.tensors.erase(up + ".weight_scale_2");
  }
  const auto both = slow(model);
  ASSERT_EQ(both.size(), 2u);
  EXPECT_NE(both.at("up_proj").find(fmt::format("lies in {} linears", layers)), std::string::npos)
      << both.at("up_proj");

  // A tied head is the embedding, read whole.
  TestCheckpoint tied = quantized();
  tied.tensors.erase("lm_head.weight");
  tied.config["tie_word_embeddings"] = true;
  const auto embedding = slow(tied);
  ASSERT_EQ(embedding.size(), 1u);
  EXPECT_EQ(embedding.begin()->first, "lm_head, tied to the embedding");
  EXPECT_NE(embedding.begin()->second.find("--untie"), std::string::npos);
}

// Whatever stands in the files, the doctor answers.
TEST(Doctor, IsTotal) {
  const Json values[] = {
      nullptr,        true,       -1,     1e300, "x", Json::array(), Json::array({1, "Linear", Json::object()}),
      Json::object(), {{"a", 1}}, "re:(", "*"};
  const std::function<void(Json&, const std::function<void(Json&)>&)> each = [&](Json& at, const auto& visit) {
    if (!at.is_structured()) return;
    for (auto& item : at) {
      visit(item);
      each(item, visit);
    }
  };
  const auto survives = [](const TestCheckpoint& model, const Path& folder) {
    for (const auto& [name, text] : model.files) checkpoint::testing::write_plain(folder / name, text);
    checkpoint::testing::write_plain(folder / "config.json", model.config.dump());
    const Result<Report> report = examine(folder, Reader::compressed_tensors);
    EXPECT_TRUE(report.ok() || !report.status().message().empty());
  };
  TemporaryFolder scratch;
  size_t turn = 0;
  for (const TestCheckpoint& start : {compressed_model(), wrapped_model(quantized_model())}) {
    start.write(scratch / "model");
    for (int round = 0; round < 2; ++round) {
      TestCheckpoint model = start;
      each(model.config, [&](Json& item) {
        Json before = item;
        item = values[turn++ % std::size(values)];
        survives(model, scratch / "model");
        item = std::move(before);
      });
      for (auto& [name, text] : model.files) {
        if (!name.ends_with("config.json")) continue;
        Json json = *parse_json(text, name);
        const std::string sound = text;
        each(json, [&](Json& item) {
          Json before = item;
          item = values[turn++ % std::size(values)];
          text = json.dump();
          survives(model, scratch / "model");
          item = std::move(before);
        });
        text = sound;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::checkpoint::doctor
