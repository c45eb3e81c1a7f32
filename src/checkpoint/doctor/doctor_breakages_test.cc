// Each fault that the doctor repairs, made and repaired.
#include <gtest/gtest.h>

#include <set>

#include "checkpoint/doctor/released.h"
#include "checkpoint/doctor/rule_table.h"
#include "checkpoint/doctor/test_models.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint::doctor {
namespace {

using test::TemporaryFolder;

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

TestCheckpoint with_draft_head() {
  TestCheckpoint model = wrapped_quantized();
  model.config["quantization_config"]["ignore"].push_back("mtp*");
  edit_file(model, "hf_quant_config.json",
            [](Json& json) { json["quantization"]["exclude_modules"].push_back("mtp*"); });
  model.tensors["mtp.fc.weight"] = {"BF16", {64, 128}, std::string(2 * 64 * 128, '\0')};
  return model;
}

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

}  // namespace
}  // namespace nibble::checkpoint::doctor
