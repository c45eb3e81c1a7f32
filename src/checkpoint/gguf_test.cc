// GGUF against the folders that files are made from: every tensor, every logit, and what files that lie are told.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_export.h"
#include "checkpoint/gguf_text.h"
#include "checkpoint/gguf_unpack.h"
#include "checkpoint/tensor_entry.h"
#include "checkpoint/test_folder.h"
#include "checkpoint/test_gguf.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::exported;
using testing::loaded;
using testing::logits;
using testing::rewrite;
using testing::unpacked;
using testing::write_random;

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

bool not_nibble(std::string_view key) {
  return !key.starts_with("nibble.");
}

/// Tensors of `a` against those of the same name in `b`, which has no others but those of the vision tower.
void expect_same_tensors(const Path& a, const Path& b) {
  const auto left = std::move(SafetensorsFolder::open(a)).value(),
             right = std::move(SafetensorsFolder::open(b)).value();
  EXPECT_EQ(left.tensors().size(), right.tensors().size());
  for (const auto& entry : left.tensors()) {
    const auto* other = right.find(entry.info->name);
    ASSERT_NE(other, nullptr) << entry.info->name;
    EXPECT_EQ(entry.info->text(), other->info->text()) << entry.info->name;
    const auto x = entry.file->bytes(*entry.info), y = other->file->bytes(*other->info);
    EXPECT_TRUE(x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size()) == 0) << entry.info->name;
  }
}

TEST(Gguf, TinyVoiceComesBackTensorForTensor) {
  const TemporaryFolder folder;
  const GgufExport made = exported(kTinyVoice, folder / "a.gguf");
  EXPECT_EQ(made.matrices, GgufMatrices::bf16);
  ASSERT_EQ(made.notes.size(), 1u);
  EXPECT_NE(made.notes[0].find("NFC"), std::string::npos);
  const GgufUnpack back = unpacked(folder / "a.gguf", folder / "back");
  EXPECT_GT(back.kept, 0u);
  EXPECT_EQ(back.decoded, 0u);
  expect_same_tensors(kTinyVoice, folder / "back");
  EXPECT_EQ(testing::read_json_file(folder / "back" / "config.json"),
            testing::read_json_file(kTinyVoice / "config.json"));
  EXPECT_EQ(*read_file(folder / "back" / "chat_template.jinja"), *read_file(kTinyVoice / "chat_template.jinja"));
}

TEST(Gguf, EveryRatioOfHeadsComesBackTensorForTensor) {
  for (const int64_t ratio : {1, 2, 3}) {
    const TemporaryFolder folder;
    const bool tied = ratio == 2;
    write_random(folder / "hf", ratio, tied, ratio == 3 ? 1 : 0);
    exported(folder / "hf", folder / "a.gguf");
    unpacked(folder / "a.gguf", folder / "back");
    expect_same_tensors(folder / "hf", folder / "back");
    EXPECT_EQ(logits(loaded(folder / "hf")), logits(loaded(folder / "a.gguf"))) << ratio;
  }
}

TEST(Gguf, WithoutNibblesKeysVectorsComeBackWithinTheirRounding) {
  const TemporaryFolder folder;
  write_random(folder / "hf", 2, false, 1);
  exported(folder / "hf", folder / "a.gguf");
  rewrite(folder / "a.gguf", folder / "b.gguf", not_nibble);
  EXPECT_EQ(unpacked(folder / "b.gguf", folder / "back").kept, 0u);
  const auto left = std::move(SafetensorsFolder::open(folder / "hf")).value(),
             right = std::move(SafetensorsFolder::open(folder / "back")).value();
  ASSERT_EQ(left.tensors().size(), right.tensors().size());
  int inexact = 0;
  for (const auto& entry : left.tensors()) {
    const std::string& name = entry.info->name;
    const auto* other = right.find(name);
    ASSERT_NE(other, nullptr) << name;
    ASSERT_EQ(entry.info->text(), other->info->text()) << name;
    const Tensor a = *entry.file->tensor(*entry.info), b = *other->file->tensor(*other->info);
    if (std::memcmp(a.raw(), b.raw(), a.bytes()) == 0) continue;
    ++inexact;
    const bool decay = name.ends_with("A_log");
    EXPECT_TRUE(decay || name.find("norm") != std::string::npos) << name;
    EXPECT_EQ(name.find("linear_attn.norm"), std::string::npos) << name;
    for (int64_t i = 0; i < a.elements(); ++i) {
      const double x = float_at(a, i), y = float_at(b, i);
      EXPECT_LE(std::fabs(x - y), decay ? 2 * 0x1p-23 * std::max(1.0, std::fabs(x)) : 0x1p-24) << name << " " << i;
    }
  }
  EXPECT_GT(inexact, 0);
}

TEST(Gguf, LogitsOfBf16AreThoseOfTheFolder) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const LoadedModel hf = loaded(kTinyVoice), gguf = loaded(folder / "a.gguf");
  EXPECT_EQ(logits(hf), logits(gguf));
  EXPECT_TRUE(same_model(hf.weights.config, gguf.weights.config));
  EXPECT_EQ(hf.generation.stop_ids, gguf.generation.stop_ids);
  EXPECT_EQ(gguf.format.format, "bf16");
  EXPECT_NE(hf.fingerprint, gguf.fingerprint);

  // Without the originals norms are what f32 made of 1 + w.
  rewrite(folder / "a.gguf", folder / "b.gguf", not_nibble);
  const LoadedModel bare = loaded(folder / "b.gguf");
  EXPECT_EQ(hf.generation.stop_ids, bare.generation.stop_ids);
  const std::vector<float> want = logits(hf), got = logits(bare);
  double most = 0, difference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    most = std::max<double>(most, std::fabs(want[i]));
    difference = std::max<double>(difference, std::fabs(want[i] - got[i]));
  }
  EXPECT_LE(difference, 1e-5 * most);
}

TEST(Gguf, AnOriginalThatNoLongerFitsIsNotBelieved) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const auto change = [](std::string_view name, std::span<std::byte> bytes) {
    if (name != "blk.0.ssm_a") return;
    const float value = -2;
    std::memcpy(bytes.data(), &value, sizeof value);
  };
  rewrite(
      folder / "a.gguf", folder / "b.gguf", [](std::string_view) { return true; }, change);
  const LoadedModel model = loaded(folder / "b.gguf");
  EXPECT_FLOAT_EQ(model.weights.blocks[0].gdn->a_log.f32()[0], std::log(2.0f));
}

TEST(Gguf, TheTokenizerIsTheSame) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const auto hf = std::move(text::Tokenizer::load(kTinyVoice)).value();
  auto read = read_gguf_text(folder / "a.gguf");
  ASSERT_TRUE(read.ok()) << read.status().text();
  EXPECT_TRUE(read->nfc);
  EXPECT_EQ(hf.eos(), read->tokenizer.eos());
  for (const char* words :
       {"Hello, wörld! 12345", "e\u0301 is composed", "<|im_start|>user\n<think>x</think><|im_end|>",
        "  two  spaces\n\n\tand tabs", "हिन्दी ไทย 漢字 🙂"}) {
    for (const text::AddedTokens added : {text::AddedTokens::parse, text::AddedTokens::ignore}) {
      std::vector<int32_t> want, got;
      ASSERT_TRUE(hf.encode(words, added, want).ok());
      ASSERT_TRUE(read->tokenizer.encode(words, added, got).ok());
      EXPECT_EQ(want, got) << words;
      EXPECT_EQ(hf.decode(want), read->tokenizer.decode(want));
    }
  }
  for (int32_t id = 0; id < hf.id_limit(); ++id) {
    EXPECT_EQ(hf.bytes_of(id), read->tokenizer.bytes_of(id)) << id;
    EXPECT_EQ(hf.is_special(id), read->tokenizer.is_special(id)) << id;
    EXPECT_EQ(hf.known(id), read->tokenizer.known(id)) << id;
  }
  const Json messages = {{{"role", "user"}, {"content", "Hi"}}};
  const auto chat_template = std::move(text::ChatTemplate::load(kTinyVoice)).value();
  EXPECT_EQ(chat_template.render(messages, Json())->text, read->chat_template.render(messages, Json())->text);

  unpacked(folder / "a.gguf", folder / "back");
  const auto again = text::Tokenizer::load(folder / "back");
  ASSERT_TRUE(again.ok()) << again.status().text();
  std::vector<int32_t> want, got;
  ASSERT_TRUE(hf.encode("Hello, e\u0301<|im_end|>", text::AddedTokens::parse, want).ok());
  ASSERT_TRUE(again->encode("Hello, e\u0301<|im_end|>", text::AddedTokens::parse, got).ok());
  EXPECT_EQ(want, got);
}

TEST(Gguf, SaysWhatLlamaCppReads) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const Gguf file = std::move(Gguf::open(folder / "a.gguf")).value();
  const std::map<std::string, int64_t> integers = {{"general.file_type", 32},
                                                   {"general.quantization_version", 2},
                                                   {"qwen35.block_count", 8},
                                                   {"qwen35.context_length", 4096},
                                                   {"qwen35.embedding_length", 256},
                                                   {"qwen35.feed_forward_length", 768},
                                                   {"qwen35.attention.head_count", 2},
                                                   {"qwen35.attention.head_count_kv", 1},
                                                   {"qwen35.attention.key_length", 256},
                                                   {"qwen35.attention.value_length", 256},
                                                   {"qwen35.rope.dimension_count", 64},
                                                   {"qwen35.ssm.conv_kernel", 4},
                                                   {"qwen35.ssm.state_size", 128},
                                                   {"qwen35.ssm.group_count", 1},
                                                   {"qwen35.ssm.time_step_rank", 2},
                                                   {"qwen35.ssm.inner_size", 256},
                                                   {"qwen35.full_attention_interval", 4},
                                                   {"qwen35.vocab_size", 2048},
                                                   {"tokenizer.ggml.eos_token_id", 1556},
                                                   {"tokenizer.ggml.eot_token_id", 1556},
                                                   {"tokenizer.ggml.padding_token_id", 1554}};
  for (const auto& [key, value] : integers) EXPECT_EQ(*file.integer(key), value) << key;
  EXPECT_EQ(**file.string("general.architecture"), "qwen35");
  EXPECT_EQ(**file.string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(**file.string("tokenizer.ggml.pre"), "qwen35");
  EXPECT_EQ(**file.boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(static_cast<float>(**file.number("qwen35.attention.layer_norm_rms_epsilon")), 1e-6f);
  EXPECT_EQ(**file.number("qwen35.rope.freq_base"), 1e7);
  const GgufArray& sections = **file.integers("qwen35.rope.dimension_sections");
  ASSERT_EQ(sections.count, 4u);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(sections.integer(i), (std::vector<int64_t>{11, 11, 10, 0})[i]);
  const GgufArray &tokens = **file.strings("tokenizer.ggml.tokens"),
                  &types = **file.integers("tokenizer.ggml.token_type");
  EXPECT_EQ(tokens.count, 2048u);
  EXPECT_EQ(types.count, 2048u);
  EXPECT_EQ(tokens.strings[1556], "<|im_end|>");
  EXPECT_EQ(types.integer(1556), 3);
  EXPECT_EQ(tokens.strings[1557], "<think>");
  EXPECT_EQ(types.integer(1557), 4);
  EXPECT_EQ(tokens.strings[2047], "[PAD2047]");
  EXPECT_EQ(types.integer(2047), 5);
  EXPECT_EQ((**file.strings("tokenizer.ggml.merges")).strings[1], "Ġ \"");
  EXPECT_EQ(file.find("blk.0.ssm_conv1d.weight")->text(), "[512,4] F32");
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->type, GgmlType::f32);
  EXPECT_EQ(file.find("blk.0.ssm_a")->text(), "[2] F32");
  EXPECT_EQ(file.find("output.weight")->text(), "[2048,256] BF16");
}

TEST(Gguf, RefusesWhatTheMetadataCannotSay) {
  const TemporaryFolder folder;
  const auto refused = [&](const char* what, const std::function<void(Json&)>& change) {
    testing::TestCheckpoint micro = testing::TestCheckpoint::micro();
    change(micro.config);
    micro.write(folder / "hf");
    const Status status = export_gguf(folder / "hf", folder / "a.gguf").status();
    EXPECT_EQ(status.code(), Code::unsupported) << status.text();
    EXPECT_NE(status.message().find(what), std::string::npos) << status.text();
    EXPECT_FALSE(std::filesystem::exists(folder / "a.gguf"));
  };
  std::filesystem::create_directory(folder / "hf");
  refused("expected one head size", [](Json&) {});
  GgufExportOptions options;
  options.matrices = GgufMatrices::nvfp4;
  const Status nvfp4 = export_gguf(kTinyVoice, folder / "a.gguf", options).status();
  EXPECT_EQ(nvfp4.code(), Code::invalid_argument);
  EXPECT_EQ(export_gguf(kTinyVoice, folder.path()).status().code(), Code::invalid_argument);
}

TEST(Gguf, RefusesFilesWhosePartsDoNotBelongTogether) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const auto keep_all = [](std::string_view) { return true; };
  const auto expect = [&](std::string_view what) {
    const Status status = load_checkpoint(folder / "b.gguf").status();
    EXPECT_FALSE(status.ok()) << what;
    EXPECT_NE(status.message().find(what), std::string::npos) << status.text();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
    EXPECT_FALSE(status.hint().empty());
  };
  for (const char* key : {"general.architecture", "qwen35.block_count", "qwen35.ssm.inner_size",
                          "qwen35.rope.freq_base", "tokenizer.ggml.tokens"}) {
    rewrite(folder / "a.gguf", folder / "b.gguf", [&](std::string_view k) { return k != key; });
    expect(key);
  }
  rewrite(folder / "a.gguf", folder / "b.gguf", keep_all, [](std::string_view name, std::span<std::byte> bytes) {
    if (name == "blk.2.ffn_up.weight") bytes[1] = std::byte{0x7F}, bytes[0] = std::byte{0x80};
  });
  expect("weight not finite: blk.2.ffn_up.weight[0,0]");
  rewrite(folder / "a.gguf", folder / "b.gguf", keep_all, [](std::string_view name, std::span<std::byte> bytes) {
    const float positive = 1;  // log(-1) is no number
    if (name == "blk.0.ssm_a") std::memcpy(bytes.data() + 4, &positive, 4);
  });
  expect("weight not finite: blk.0.ssm_a");
}

/// Changes bytes of the metadata and the tensor table of a whole model.
TEST(Gguf, ChangedHeadersAreErrorsOrModels) {
  const TemporaryFolder folder;
  exported(kTinyVoice, folder / "a.gguf");
  const std::string whole = *read_file(folder / "a.gguf");
  const size_t keys = whole.find("qwen35.block_count");
  ASSERT_NE(keys, std::string::npos);
  const size_t tokens = whole.find("tokenizer.ggml.tokens");
  Rng rng(11);
  for (int round = 0; round < 60; ++round) {
    std::string bytes = whole;
    for (int n = 0; n < 3; ++n) {
      const size_t at = keys + rng.below(static_cast<uint32_t>(tokens - keys));
      bytes[at] = static_cast<char>(rng.below(3) == 0 ? rng.bits() : 0xFF * rng.below(2));
    }
    testing::write_plain(folder / "b.gguf", bytes);
    LoadOptions options;
    options.check_values = false;
    const Result<LoadedModel> model = load_checkpoint(folder / "b.gguf", options);
    if (model.ok()) continue;
    EXPECT_EQ(model.status().message().find('\n'), std::string::npos) << model.status().text();
  }
}

}  // namespace
}  // namespace nibble::checkpoint
