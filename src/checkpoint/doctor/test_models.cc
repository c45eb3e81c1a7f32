#include "checkpoint/doctor/test_models.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/sha256.h"
#include "checkpoint/doctor/released.h"

namespace nibble::checkpoint::doctor {
namespace {

std::string slurp(const Path& file) {
  Result<std::string> text = read_file(file);
  EXPECT_TRUE(text.ok()) << text.status().text();
  return text.ok() ? *text : std::string();
}

}  // namespace

std::map<std::string, std::string> digests(const Path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) out[entry.path().lexically_relative(folder)] = sha256_of(slurp(entry.path()));
  }
  return out;
}

void edit_file(TestCheckpoint& model, const std::string& file, const std::function<void(Json&)>& edit) {
  Json json = *parse_json(model.files[file], "test");
  edit(json);
  model.files[file] = json.dump(1);
}

void rename_tensors(TestCheckpoint& model, const std::string& from, const std::string& to) {
  std::map<std::string, Blob> tensors;
  for (auto& [name, blob] : model.tensors) {
    tensors[name.starts_with(from) ? to + name.substr(from.size()) : name] = std::move(blob);
  }
  model.tensors = std::move(tensors);
}

TestCheckpoint text_model(TestCheckpoint model) {
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    model.files[file] = slurp(kTinyVoice / file);
  }
  model.config["eos_token_id"] = 1556;
  model.files["generation_config.json"] = R"({"eos_token_id": [1556, 1554]})";
  return model;
}

TestCheckpoint wrapped_model(TestCheckpoint base) {
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

TestCheckpoint quantized_model(const std::string& algo) {
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
  return wrapped_model(quantized_model());
}
TestCheckpoint compressed() {
  return text_model(compressed_model());
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

Report look(const Path& folder, Asked asked) {
  Result<Report> report = examine(folder, asked);
  EXPECT_TRUE(report.ok()) << report.status().text();
  return report.ok() ? *report : Report{};
}

std::vector<float> logits_of(const Path& folder) {
  const Result<LoadedModel> model = load_checkpoint(folder, {});
  EXPECT_TRUE(model.ok()) << model.status().text();
  return model.ok() ? checkpoint::testing::logits(*model) : std::vector<float>();
}

}  // namespace nibble::checkpoint::doctor
