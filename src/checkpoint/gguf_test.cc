// GGUF against the folders that files are made from: every tensor, every logit, and what files that lie are told.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_export.h"
#include "checkpoint/gguf_layout.h"
#include "checkpoint/gguf_text.h"
#include "checkpoint/gguf_unpack.h"
#include "checkpoint/synthetic.h"
#include "checkpoint/tensor_entry.h"
#include "checkpoint/test_folder.h"
#include "io/gguf_writer.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using model::TensorKind;
using test::TemporaryFolder;
using testing::logits;

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

GgufExport exported(const Path& folder, const Path& file, std::optional<GgufMatrices> matrices = std::nullopt) {
  GgufExportOptions options;
  options.matrices = matrices;
  Result<GgufExport> out = export_gguf(folder, file, options);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? std::move(*out) : GgufExport();
}

LoadedModel loaded(const Path& path) {
  Result<LoadedModel> out = load_checkpoint(path);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? std::move(*out) : LoadedModel();
}

GgufUnpack unpacked(const Path& file, const Path& folder) {
  std::filesystem::create_directory(folder);
  Result<GgufUnpack> out = unpack_gguf(file, folder);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? *out : GgufUnpack();
}

/// The same file without some keys, and with changes to tensors.
using Edit = std::function<void(std::string_view name, std::span<std::byte> bytes)>;
/// What stands in a tensor's place, in its shape.
struct Replacement {
  GgmlType type;
  std::span<const std::byte> bytes;
};
using Replace = std::function<std::optional<Replacement>(std::string_view name)>;
void rewrite(const Path& from, const Path& to, const std::function<bool(std::string_view key)>& keep,
             const Edit& edit = {}, const Replace& replace = {}) {
  const Gguf file = std::move(Gguf::open(from)).value();
  GgufMetadata metadata;
  for (const auto& [key, value] : file.metadata()) {
    if (!keep(key)) continue;
    if (const auto* n = std::get_if<uint64_t>(&value)) metadata.add(key, static_cast<uint32_t>(*n));
    if (const auto* x = std::get_if<double>(&value)) metadata.add(key, static_cast<float>(*x));
    if (const auto* b = std::get_if<bool>(&value)) metadata.add(key, *b);
    if (const auto* s = std::get_if<std::string_view>(&value)) metadata.add(key, *s);
    const auto* array = std::get_if<GgufArray>(&value);
    if (array == nullptr) continue;
    if (array->type == GgufType::u8) {
      metadata.add(key, array->bytes);
    } else if (array->type == GgufType::string) {
      metadata.add(key, std::vector<std::string>(array->strings.begin(), array->strings.end()));
    } else {
      std::vector<int32_t> numbers;
      for (uint64_t i = 0; i < array->count; ++i) numbers.push_back(static_cast<int32_t>(array->integer(i)));
      metadata.add(key, numbers);
    }
  }
  std::vector<GgufDeclaration> tensors;
  for (const GgufTensor& t : file.tensors()) {
    const auto other = replace ? replace(t.name) : std::nullopt;
    tensors.push_back({t.name, other ? other->type : t.type, t.shape});
  }
  auto writer = GgufWriter::create(to, metadata, tensors);
  ASSERT_TRUE(writer.ok()) << writer.status().text();
  for (const GgufTensor& t : file.tensors()) {
    const auto other = replace ? replace(t.name) : std::nullopt;
    const auto bytes = other ? other->bytes : file.bytes(t);
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    if (edit) edit(t.name, copy);
    ASSERT_TRUE(writer->append(t.name, copy).ok());
  }
  ASSERT_TRUE(writer->commit().ok());
}

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

/// A folder with r = Hv/Hk value heads per key head, every tensor random, as BF16 but for released F32 vectors.
void write_random(const Path& folder, int64_t ratio, bool tied, int64_t mtp, int64_t hidden = 64) {
  model::Config c = *model::builtin_config("0.8b");
  c.hidden = hidden;
  c.intermediate = 2 * hidden;
  c.layers = 4;
  c.layer_types.resize(4);
  c.heads = 2;
  c.kv_heads = 1;
  c.key_heads = 2;
  c.value_heads = 2 * ratio;
  c.head_dim = c.key_head_dim = c.value_head_dim = 32;
  c.rotary_dim = 8;
  c.tie_embeddings = tied;
  c.mtp_layers = mtp;
  ThreadPool pool(1);
  ASSERT_TRUE(write_synthetic_checkpoint(folder, c, pool).ok());
  // Norms of a synthetic model are all alike: overwrite every vector with numbers that differ.
  const Path path = folder / "model.safetensors";
  std::string bytes = *read_file(path);
  const auto file = std::move(Safetensors::open(path)).value();
  Rng rng(static_cast<uint64_t>(ratio));
  for (const TensorInfo& info : file.tensors()) {
    if (info.shape.size() == 2) continue;
    const size_t at = static_cast<size_t>(file.bytes(info).data() - file.mapping().bytes().data());
    const size_t size = info.type == DType::bf16 ? 2 : 4;
    for (size_t i = 0; i < info.bytes / size; ++i) {
      const float value = rng.uniform(-1, 1) * std::exp2(-static_cast<float>(rng.below(24)));
      const uint16_t narrow = f32_to_bf16(value);
      std::memcpy(bytes.data() + at + i * size, size == 2 ? static_cast<const void*>(&narrow) : &value, size);
    }
  }
  testing::write_plain(path, bytes);
}

TEST(GgufLayout, NamesAndShapes) {
  const model::Config c = *model::builtin_config("9b");
  std::map<std::string, std::string> names;
  for (const GgufSlot& slot : gguf_slots(c, model::kWrappedPrefix, false, 1)) {
    EXPECT_TRUE(names.emplace(slot.hf.name, slot.name).second);
    if (slot.hf.kind == TensorKind::conv) {
      EXPECT_EQ(slot.shape, (std::vector<int64_t>{8192, 4}));
    }
  }
  const std::string p = "model.language_model.layers.";
  EXPECT_EQ(names.at("model.language_model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(names.at("model.language_model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(names.at("lm_head.weight"), "output.weight");
  EXPECT_EQ(names.at(p + "0.linear_attn.A_log"), "blk.0.ssm_a");
  EXPECT_EQ(names.at(p + "0.linear_attn.dt_bias"), "blk.0.ssm_dt.bias");
  EXPECT_EQ(names.at(p + "0.linear_attn.in_proj_b.weight"), "blk.0.ssm_beta.weight");
  EXPECT_EQ(names.at(p + "30.linear_attn.out_proj.weight"), "blk.30.ssm_out.weight");
  EXPECT_EQ(names.at(p + "31.self_attn.o_proj.weight"), "blk.31.attn_output.weight");
  EXPECT_EQ(names.at(p + "31.post_attention_layernorm.weight"), "blk.31.post_attention_norm.weight");
  EXPECT_EQ(names.at("mtp.fc.weight"), "blk.32.nextn.eh_proj.weight");
  EXPECT_EQ(names.at("mtp.norm.weight"), "blk.32.nextn.shared_head_norm.weight");
  EXPECT_EQ(names.at("mtp.pre_fc_norm_hidden.weight"), "blk.32.nextn.hnorm.weight");
  EXPECT_EQ(names.at("mtp.layers.0.self_attn.q_norm.weight"), "blk.32.attn_q_norm.weight");
  std::set<std::string> unique;
  for (const auto& [hf, gguf] : names) unique.insert(gguf);
  EXPECT_EQ(unique.size(), names.size());
}

// GGUF's view [r,Hk,d] against the checkpoint's [Hk,r,d]: r = 3, Hk = 2, heads named k * 3 + j.
TEST(GgufLayout, ValueHeadsAreTiled) {
  model::Config c = *model::builtin_config("9b");
  c.key_heads = 2;
  c.value_heads = 6;
  c.key_head_dim = c.value_head_dim = 16;
  const std::vector<int64_t> order = {0, 3, 1, 4, 2, 5};
  for (const GgufSlot& slot : gguf_slots(c, model::kTextPrefix, false, 0)) {
    if (slot.name == "blk.0.ssm_a") {
      for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(checkpoint_index(c, slot, i), order[static_cast<size_t>(i)]);
    } else if (slot.name == "blk.0.attn_qkv.weight") {
      EXPECT_EQ(slot.order, HeadOrder::rows_of_v);
      EXPECT_EQ(checkpoint_index(c, slot, 63), 63);
      EXPECT_EQ(checkpoint_index(c, slot, 64 + 16 + 5), 64 + 3 * 16 + 5);
    } else if (slot.name == "blk.0.ssm_out.weight") {
      EXPECT_EQ(slot.order, HeadOrder::columns);
      EXPECT_EQ(checkpoint_index(c, slot, 2 * 16 + 1), 1 * 16 + 1);
    }
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

TEST(Gguf, Q8IsTheWeightWithinHalfAStep) {
  const TemporaryFolder folder;
  write_random(folder / "hf", 3, true, 1);
  const GgufExport made = exported(folder / "hf", folder / "a.gguf", GgufMatrices::q8_0);
  const LoadedModel hf = loaded(folder / "hf"), gguf = loaded(folder / "a.gguf");
  EXPECT_EQ(gguf.format.format, "q8_0");
  EXPECT_LT(static_cast<double>(made.bytes), 0.6 * static_cast<double>(hf.format.file_bytes));
  std::map<std::string, ops::Linear> want;
  hf.weights.for_each_linear(
      [&](std::string_view name, const ops::Linear& linear) { want[std::string(name)] = linear; });
  int compared = 0;
  gguf.weights.for_each_linear([&](std::string_view name, const ops::Linear& linear) {
    const ops::Linear& w = want.at(std::string(name));
    for (int64_t i = 0; i < linear.out * linear.in; i += 32) {
      float amax = 0;
      // Heads are 32 wide here, so a block of a row of out_proj is one head wherever it stands.
      for (int64_t j = i; j < i + 32; ++j) amax = std::max(amax, std::fabs(float_at(w.weight, j)));
      for (int64_t j = i; j < i + 32; ++j) {
        ASSERT_LE(std::fabs(float_at(w.weight, j) - float_at(linear.weight, j)), 0.57f * amax / 127 + 1e-9f) << name;
        ++compared;
      }
    }
  });
  EXPECT_GT(compared, 10'000);
}

// Blocks with random codes in place of the linears: what is loaded is what a file of the decoded values would say.
TEST(Gguf, BlockFormatsLoadAsTheirDecodedValues) {
  const TemporaryFolder folder;
  write_random(folder / "hf", 4, true, 0, 256);  // Hv*Dv = 256: rows of whole super-blocks everywhere but in o_proj
  exported(folder / "hf", folder / "a.gguf");
  constexpr GgmlType kTypes[] = {GgmlType::q4_0, GgmlType::q4_k, GgmlType::q5_k,
                                 GgmlType::q6_k, GgmlType::q8_0, GgmlType::f16};
  const Gguf source = std::move(Gguf::open(folder / "a.gguf")).value();
  std::map<std::string, std::vector<std::byte>, std::less<>> blocks;
  std::map<std::string, std::vector<float>, std::less<>> values;
  std::map<std::string, GgmlType, std::less<>> types;
  Rng rng(21);
  for (const GgufTensor& t : source.tensors()) {
    if (t.type != GgmlType::bf16 || t.shape[1] % 256 != 0 || t.name == "token_embd.weight") continue;
    const GgmlType type = types[t.name] = kTypes[types.size() % std::size(kTypes)];
    const GgmlFormat& format = ggml_format(type);
    std::vector<std::byte>& raw = blocks[t.name];
    raw.resize(GgufDeclaration{t.name, type, t.shape}.bytes());
    for (size_t i = 0; i < raw.size(); ++i) {
      // A scale, or an f16 weight, is at most 2^-11; the codes and the small scales beside it are anything.
      const size_t at = i % static_cast<size_t>(format.bytes), half = type == GgmlType::q6_k ? 208 : 0;
      const size_t halves = type == GgmlType::q4_k || type == GgmlType::q5_k ? 4 : 2;
      const bool high = at >= half && at < half + halves && at % 2 == 1;
      raw[i] = static_cast<std::byte>(high ? 0x0C + rng.below(4) : rng.bits());
    }
    values[t.name].resize(static_cast<size_t>(t.shape[0] * t.shape[1]));
    ggml_decode(type, raw, values[t.name]);
  }
  ASSERT_GT(types.size(), 2 * std::size(kTypes));
  rewrite(
      folder / "a.gguf", folder / "blocks.gguf", [](std::string_view) { return true; }, {},
      [&](std::string_view name) -> std::optional<Replacement> {
        const auto found = blocks.find(name);
        if (found == blocks.end()) return std::nullopt;
        return Replacement{types.find(name)->second, found->second};
      });
  rewrite(
      folder / "a.gguf", folder / "floats.gguf", [](std::string_view) { return true; }, {},
      [&](std::string_view name) -> std::optional<Replacement> {
        const auto found = values.find(name);
        if (found == values.end()) return std::nullopt;
        return Replacement{GgmlType::f32, std::as_bytes(std::span(found->second))};
      });
  const LoadedModel a = loaded(folder / "blocks.gguf"), b = loaded(folder / "floats.gguf");
  const std::vector<float> got = logits(a), want = logits(b);
  for (const float value : want) ASSERT_TRUE(std::isfinite(value));
  EXPECT_EQ(got, want);
  EXPECT_NE(got, logits(loaded(folder / "a.gguf")));
  // Back in a folder they are rounded to BF16, F16 ones aside.
  const GgufUnpack back = unpacked(folder / "blocks.gguf", folder / "back");
  EXPECT_EQ(back.decoded,
            types.size() - static_cast<size_t>(std::count_if(types.begin(), types.end(),
                                                             [](const auto& t) { return t.second == GgmlType::f16; })));
  const LoadedModel c = loaded(folder / "back");
  const ops::Linear &x = a.weights.blocks[0].gdn->out_proj, &y = c.weights.blocks[0].gdn->out_proj;
  for (int64_t i = 0; i < x.out * x.in; ++i) {
    const float value = float_at(x.weight, i);
    const bool half = types.at("blk.0.ssm_out.weight") == GgmlType::f16;
    ASSERT_EQ(float_at(y.weight, i), half ? value : round_to_bf16(value)) << i;
  }
}

/// The micro model in NVFP4 with wider rows cannot be had: a random folder, quantized module by module.
void write_nvfp4(const Path& source, const Path& folder) {
  std::filesystem::create_directory(folder);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    std::filesystem::copy_file(source / name, folder / name);
  }
  testing::TestCheckpoint out;
  out.config = testing::read_json_file(source / "config.json");
  const auto file = std::move(Safetensors::open(source / "model.safetensors")).value();
  Rng rng(9);
  for (const TensorInfo& info : file.tensors()) {
    const auto raw = file.bytes(info);
    const std::string bytes(reinterpret_cast<const char*>(raw.data()), raw.size());
    const bool kept = info.shape.size() != 2 || info.name.find("in_proj_a") != std::string::npos ||
                      info.name.find("in_proj_b") != std::string::npos || info.name.find("layers") == std::string::npos;
    if (kept) {
      out.tensors[info.name] = {info.dtype, info.shape, bytes};
      continue;
    }
    const std::string module(model::module_name(info.name));
    const int64_t n = info.shape[0], k = info.shape[1];
    std::string codes(static_cast<size_t>(n * k / 2), '\0'), scales(static_cast<size_t>(n * k / 16), '\0');
    for (char& c : codes) c = static_cast<char>(rng.bits());
    for (char& c : scales) c = static_cast<char>(rng.below(0x7F));
    const float scale = 0x1p-10f * (1 + rng.uniform());
    out.tensors[module + ".weight"] = {"U8", {n, k / 2}, codes};
    out.tensors[module + ".weight_scale"] = {"F8_E4M3", {n, k / 16}, scales};
    out.tensors[module + ".weight_scale_2"] = {"F32", {}, std::string(reinterpret_cast<const char*>(&scale), 4)};
    out.tensors[module + ".input_scale"] = {"F32", {}, std::string(reinterpret_cast<const char*>(&scale), 4)};
  }
  out.config["quantization_config"] = {
      {"quant_method", "modelopt"},
      {"quant_algo", "NVFP4"},
      {"ignore", {"lm_head", "*linear_attn.in_proj_a", "*linear_attn.in_proj_b", "*conv1d"}},
      {"producer", {{"name", "modelopt"}}}};
  out.files["tokenizer.json"] = *read_file(source / "tokenizer.json");
  out.files["tokenizer_config.json"] = *read_file(source / "tokenizer_config.json");
  out.files["chat_template.jinja"] = *read_file(source / "chat_template.jinja");
  out.write(folder);
}

TEST(Gguf, Nvfp4KeepsEveryCodeAndScale) {
  for (const int64_t ratio : {1, 3}) {
    const TemporaryFolder folder;
    write_random(folder / "hf", ratio, false, 0);
    write_nvfp4(folder / "hf", folder / "q");
    const GgufExport made = exported(folder / "q", folder / "a.gguf");
    EXPECT_EQ(made.matrices, GgufMatrices::nvfp4);
    const LoadedModel hf = loaded(folder / "q"), gguf = loaded(folder / "a.gguf");
    EXPECT_EQ(gguf.format.text(), hf.format.text());
    std::map<std::string, ops::Linear> want;
    hf.weights.for_each_linear([&](std::string_view name, const ops::Linear& l) { want[std::string(name)] = l; });
    int nvfp4 = 0;
    gguf.weights.for_each_linear([&](std::string_view name, const ops::Linear& got) {
      const ops::Linear& w = want.at(std::string(name));
      ASSERT_EQ(got.format, w.format) << name;
      if (w.format != ops::WeightFormat::nvfp4) return;
      ++nvfp4;
      EXPECT_EQ(std::memcmp(got.weight.raw(), w.weight.raw(), w.weight.bytes()), 0) << name;
      EXPECT_EQ(std::memcmp(got.block_scale.raw(), w.block_scale.raw(), w.block_scale.bytes()), 0) << name;
      EXPECT_EQ(got.tensor_scale, w.tensor_scale);
      EXPECT_EQ(got.input_scale, w.input_scale);
      EXPECT_EQ(got.inputs, w.inputs);
    });
    EXPECT_EQ(nvfp4, 3 * 6 + 7);
    EXPECT_EQ(logits(hf), logits(gguf));
    const Status back = unpack_gguf(folder / "a.gguf", folder.path()).status();
    EXPECT_EQ(back.code(), Code::unsupported);

    // The same as BF16: each weight is the decoded one, rounded.
    exported(folder / "q", folder / "b.gguf", GgufMatrices::bf16);
    const LoadedModel bf16 = loaded(folder / "b.gguf");
    EXPECT_EQ(bf16.format.format, "bf16");
    const ops::Linear& q = want.at("model.layers.0.mlp.up_proj");
    const ops::Linear& b = bf16.weights.blocks[0].mlp.up_proj;
    for (int64_t i = 0; i < q.in; ++i) {
      const float scale = e4m3_to_f32(q.block_scale.u8()[i / 16]) * q.tensor_scale;
      EXPECT_EQ(float_at(b.weight, i), round_to_bf16(e2m1_to_f32(q.weight.u8()[i / 2] >> (i % 2 * 4) & 15) * scale));
    }
  }
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
