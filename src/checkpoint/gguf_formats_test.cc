// GGUF's block formats and NVFP4 against the weights that they were made from.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/tensor_entry.h"
#include "checkpoint/test_folder.h"
#include "checkpoint/test_gguf.h"
#include "io/gguf_writer.h"
#include "model/names.h"
#include "tensor/numeric.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::exported;
using testing::loaded;
using testing::logits;
using testing::Replacement;
using testing::rewrite;
using testing::unpacked;
using testing::write_random;

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

}  // namespace
}  // namespace nibble::checkpoint
