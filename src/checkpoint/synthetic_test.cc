#include "checkpoint/synthetic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "checkpoint/random_fill.h"
#include "checkpoint/synthetic_tokenizer.h"
#include "checkpoint/test_folder.h"
#include "model/names.h"
#include "ops/quant/nvfp4.h"
#include "tensor/numeric.h"
#include "tests/support/small_config.h"
#include "tests/support/temporary_folder.h"
#include "text/tokenizer.h"

namespace nibble::checkpoint {
namespace {

using model::TensorKind;
using test::TemporaryFolder;

/// A model of the released vocabulary, otherwise as small as the rules allow.
model::Config small_config(bool tied) {
  return test::small_config("0.8b", tied);
}

TEST(RandomFill, DoesNotDependOnHowItIsCut) {
  for (const TensorKind kind : {TensorKind::linear, TensorKind::conv, TensorKind::a_log}) {
    std::vector<float> whole(1003), pieces(1003);
    fill_random(kind, DType::f32, 7, 3, 0, 1003, whole.data());
    for (int64_t i = 0; i < 1003;) {
      const int64_t end = std::min<int64_t>(1003, i + 1 + i % 13);
      fill_random(kind, DType::f32, 7, 3, i, end, pieces.data() + i);
      i = end;
    }
    EXPECT_EQ(whole, pieces);
    std::vector<uint16_t> narrow(1003);
    fill_random(kind, DType::bf16, 7, 3, 0, 1003, narrow.data());
    for (size_t i = 0; i < 1003; ++i) ASSERT_EQ(narrow[i], f32_to_bf16(whole[i]));
    fill_random(kind, DType::f32, 7, 4, 0, 1003, pieces.data());
    EXPECT_NE(whole, pieces);
    fill_random(kind, DType::f32, 8, 3, 0, 1003, pieces.data());
    EXPECT_NE(whole, pieces);
  }
  std::vector<uint8_t> whole(999), pieces(999);
  fill_random_codes(1, 2, 0, 999, whole.data());
  fill_random_codes(1, 2, 0, 5, pieces.data());
  fill_random_codes(1, 2, 5, 999, pieces.data() + 5);
  EXPECT_EQ(whole, pieces);
}

/// Mean and standard deviation.
std::pair<double, double> moments(std::span<const float> values) {
  double sum = 0, squares = 0;
  for (float v : values) sum += v, squares += double{v} * v;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  return {mean, std::sqrt(squares / n - mean * mean)};
}

TEST(RandomFill, HasTheDeviationItPromises) {
  constexpr int64_t kN = 1 << 18;  // the deviation's own error is about 0.1 %
  std::vector<float> v(kN);
  fill_random(TensorKind::linear, DType::f32, 1, 1, 0, kN, v.data());
  EXPECT_NEAR(moments(v).first, 0, 2e-4);
  EXPECT_NEAR(moments(v).second, 0.02, 2e-4);
  fill_random(TensorKind::conv, DType::f32, 1, 1, 0, kN, v.data());
  EXPECT_NEAR(moments(v).second, 0.2, 2e-3);
  fill_random(TensorKind::a_log, DType::f32, 1, 1, 0, kN, v.data());
  for (float x : v) ASSERT_TRUE(x >= std::log(0.0099f) && x < std::log(16.01f));
  fill_random(TensorKind::norm, DType::f32, 1, 1, 0, 3, v.data());
  EXPECT_EQ(v[2], 0);
  fill_random(TensorKind::gated_norm, DType::f32, 1, 1, 0, 3, v.data());
  EXPECT_EQ(v[2], 1);

  ThreadPool pool(1);
  Context cx(pool);
  const OwnedTensor codes(DType::u8, {256, 512}), scales(DType::f8e4m3, {256, 64}), decoded(DType::f32, {256, 1024});
  fill_random_codes(1, 1, 0, codes.view.elements(), codes.view.u8());
  fill_random_scales(1, 1, 0, scales.view.elements(), scales.view.u8());
  ops::nvfp4_dequantize(cx, codes.view, scales.view, kRandomTensorScale, decoded.view);
  EXPECT_NEAR(moments(decoded.view.f32_span()).first, 0, 2e-4);
  EXPECT_NEAR(moments(decoded.view.f32_span()).second, 0.02, 2e-4);
}

TEST(Synthetic, InMemoryFormatsDescribeOneModel) {
  ThreadPool pool(2);
  const model::Config config = small_config(true);
  Result<LoadedModel> f32 = synthetic_model(config, ops::WeightFormat::f32, pool);
  Result<LoadedModel> bf16 = synthetic_model(config, ops::WeightFormat::bf16, pool);
  Result<LoadedModel> nvfp4 = synthetic_model(config, ops::WeightFormat::nvfp4, pool);
  ASSERT_TRUE(f32.ok() && bf16.ok() && nvfp4.ok());
  EXPECT_EQ(f32->format.format, "f32");
  EXPECT_EQ(bf16->format.format, "bf16");
  EXPECT_EQ(nvfp4->format.format, "nvfp4");
  EXPECT_EQ(f32->format.text_parameters, nvfp4->format.text_parameters);
  EXPECT_NE(f32->fingerprint, bf16->fingerprint);
  EXPECT_TRUE(bf16->weights.tied);
  EXPECT_EQ(bf16->weights.lm_head.weight.raw(), bf16->weights.embed.raw());

  std::vector<ops::Linear> wide, packed;
  f32->weights.for_each_linear([&](std::string_view, ops::Linear& l) { wide.push_back(l); });
  nvfp4->weights.for_each_linear([&](std::string_view, ops::Linear& l) { packed.push_back(l); });
  size_t i = 0, quantized = 0;
  bf16->weights.for_each_linear([&](std::string_view name, ops::Linear& l) {
    ASSERT_EQ(l.format, ops::WeightFormat::bf16) << name;
    for (int64_t k = 0; k < l.weight.elements(); k += 7) {
      ASSERT_EQ(bf16_to_f32(l.weight.bf16()[k]), wide[i].weight.f32()[k]) << name;
    }
    quantized += packed[i].format == ops::WeightFormat::nvfp4;
    EXPECT_EQ(packed[i].out, l.out);
    EXPECT_EQ(packed[i].in, l.in);
    ++i;
  });
  EXPECT_EQ(quantized, 3u * 6 + 7);  // per delta layer qkv, z, out and the MLP; the attention layer's four and its MLP
}

TEST(Synthetic, WrittenFolderLoadsToTheSameModel) {
  ThreadPool pool(2);
  const model::Config config = small_config(false);
  const TemporaryFolder parent;
  const Path folder = parent.path() / "model";
  SyntheticOptions options;
  options.shard_bytes = 20'000'000;  // two of 15.9 MB and little ones
  uint64_t last = 0, total = 0;
  options.progress = [&](const ProgressUpdate& u) { last = u.done, total = u.total; };
  const Status written = write_synthetic_checkpoint(folder, config, pool, options);
  ASSERT_TRUE(written.ok()) << written.text();
  EXPECT_EQ(last, total);
  EXPECT_TRUE(std::filesystem::exists(folder / "model-00001-of-00002.safetensors"));

  Result<LoadedModel> loaded = load_checkpoint(folder);
  ASSERT_TRUE(loaded.ok()) << loaded.status().text();
  EXPECT_EQ(loaded->weights.config, config);
  EXPECT_TRUE(loaded->format.has_mtp);
  EXPECT_EQ(loaded->generation.stop_ids, (std::vector<int32_t>{248044, 248046}));
  EXPECT_EQ(loaded->generation.top_k, 20);

  Result<LoadedModel> memory = synthetic_model(config, ops::WeightFormat::bf16, pool, options);
  ASSERT_TRUE(memory.ok());
  std::vector<ops::Linear> expected;
  memory->weights.for_each_linear([&](std::string_view, ops::Linear& l) { expected.push_back(l); });
  size_t i = 0;
  loaded->weights.for_each_linear([&](std::string_view name, ops::Linear& l) {
    ASSERT_EQ(std::memcmp(l.weight.raw(), expected[i].weight.raw(), l.weight.bytes()), 0) << name;
    ++i;
  });
  const auto equal = [](const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
  };
  const model::GdnWeights &a = *loaded->weights.blocks[0].gdn, &b = *memory->weights.blocks[0].gdn;
  EXPECT_TRUE(equal(a.a_log, b.a_log) && equal(a.conv, b.conv) && equal(a.norm, b.norm) && equal(a.dt_bias, b.dt_bias));
  EXPECT_TRUE(equal(loaded->weights.embed, memory->weights.embed));

  EXPECT_EQ(write_synthetic_checkpoint(folder, config, pool, options).code(), Code::invalid_argument);
}

TEST(Synthetic, TokenizerReadsBytesAndTheAddedTokens) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_synthetic_tokenizer(folder.path(), 1000).ok());
  Result<text::Tokenizer> tokenizer = text::Tokenizer::load(folder.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().text();
  std::vector<int32_t> ids;
  const std::string text = "<|im_start|>Hi \n\xC3\xA9<|im_end|>";
  ASSERT_TRUE(tokenizer->encode(text, text::AddedTokens::parse, ids).ok());
  // "\n" and " " have the ids of the released vocabulary.
  EXPECT_EQ(ids, (std::vector<int32_t>{248045, 39, 72, 220, 198, 127, 102, 248046}));
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_EQ(tokenizer->eos(), 248046);
  EXPECT_EQ(tokenizer->id_limit(), kSyntheticIdLimit);
  const Json golden = testing::read_json_file(NIBBLE_SOURCE_DIR "/tests/golden/qwen35_tables/added_tokens.json");
  EXPECT_EQ(golden.size(), 33u);
  for (const Json& token : golden) {
    const auto id = token["id"].get<int32_t>();
    EXPECT_EQ(tokenizer->added_token(token["content"].get<std::string>()), id) << token;
    EXPECT_EQ(tokenizer->is_special(id), token["special"].get<bool>()) << token;
  }
}

TEST(Synthetic, CancellationAndFullDisksLeaveNothing) {
  ThreadPool pool(1);
  const TemporaryFolder parent;
  const Path folder = parent.path() / "model";
  SyntheticOptions options;
  options.progress = [&](const ProgressUpdate&) { options.cancel.cancel(); };
  EXPECT_EQ(write_synthetic_checkpoint(folder, small_config(true), pool, options).code(), Code::cancelled);
  EXPECT_EQ(synthetic_model(small_config(true), ops::WeightFormat::bf16, pool, options).status().code(),
            Code::cancelled);
  int writes = 0;
  inject_file_faults([&](std::string_view operation, const Path&) {
    return operation == "write" && ++writes == 5 ? io("write: no space left on device") : Status();
  });
  const Status full = write_synthetic_checkpoint(folder, small_config(true), pool);
  inject_file_faults({});
  EXPECT_EQ(full.code(), Code::io);
  EXPECT_TRUE(std::filesystem::is_empty(parent.path()));

  model::Config small_vocab = small_config(true);
  small_vocab.vocab = 1000;
  EXPECT_EQ(write_synthetic_checkpoint(folder, small_vocab, pool).code(), Code::invalid_argument);
}

TEST(Synthetic, RefusesWhatCannotFit) {
  ThreadPool pool(1);
  model::Config huge = *model::builtin_config("27b");
  huge.intermediate = 1 << 20;
  huge.hidden = 1 << 17;
  const Status status = synthetic_model(huge, ops::WeightFormat::f32, pool).status();
  EXPECT_EQ(status.code(), Code::out_of_memory);
  EXPECT_FALSE(status.hint().empty());
}

}  // namespace
}  // namespace nibble::checkpoint
