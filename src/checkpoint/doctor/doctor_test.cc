#include "checkpoint/doctor/doctor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "checkpoint/doctor/test_models.h"
#include "checkpoint/fused_linears.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint::doctor {
namespace {

using test::TemporaryFolder;

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
         m.tensors[up + ".weight"] = TestCheckpoint::micro().tensors.at("model.layers.0.mlp.up_proj.weight");
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
