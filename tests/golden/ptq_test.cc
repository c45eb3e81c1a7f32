// Calibrated quantization of models/tiny-voice against the statistics and losses that ModelOpt and llm-compressor left.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "io/json.h"
#include "io/safetensors.h"
#include "ops/embed/embed.h"
#include "ops/quant/nvfp4.h"
#include "quantize/awq_scales.h"
#include "quantize/dense_values.h"
#include "quantize/gptq.h"
#include "quantize/layer_runner.h"
#include "quantize/moments.h"
#include "tests/support/compressed_tensors_arithmetic.h"
#include "tests/support/models.h"
#include "tests/support/temporary_folder.h"
#include "text/chat_data.h"

namespace nibble::quantize {
namespace {

using test::kGolden;
using test::kTinyVoice;
using Chats = std::vector<std::vector<int32_t>>;

Json golden_json(const std::string& name) {
  return parse_json(read_file(kGolden / name).value(), name).value();
}

Chats calibration_texts() {
  const text::ChatTemplate chat_template = text::ChatTemplate::load(kTinyVoice).value();
  const text::Tokenizer tokenizer = text::Tokenizer::load(kTinyVoice).value();
  return text::tokenize_chats(kGolden / "tiny-voice/calibration_texts.jsonl", chat_template, tokenizer).value();
}

class Ptq : public testing::Test {
  using Append = std::function<Status(const Tensor& rows)>;

 protected:
  // The embeddings of the chats, which are the inputs of layer 0.
  HiddenStates embed(const model::Weights& weights, const Chats& chats) {
    return collect([&](const Append& append) {
      for (const auto& chat : chats) {
        const Arena::Scope scope(cx_.arena);
        Tensor h = cx_.arena.f32({static_cast<int64_t>(chat.size()), weights.config.hidden});
        ops::embed(cx_, chat, weights.embed, h);
        NIBBLE_RETURN_IF_ERROR(append(h));
      }
      return Status();
    });
  }

  // The residual stream behind the mixer, behind the MLP, and behind the layer.
  HiddenStates behind_mixer(LayerRunner& runner, const model::BlockWeights& block, const HiddenStates& in) {
    return collect([&](const Append& append) {
      return runner.mixer(block, in, nullptr, [&](const Batch&, const model::BlockTrace& trace, const Tensor&) {
        return append(trace.h_mid);
      });
    });
  }
  HiddenStates behind_mlp(LayerRunner& runner, const model::BlockWeights& block, const HiddenStates& mid) {
    return collect([&](const Append& append) {
      return runner.mlp(block, mid, nullptr,
                        [&](const Batch&, const model::BlockTrace&, const Tensor& h) { return append(h); });
    });
  }
  HiddenStates behind_layer(LayerRunner& runner, const model::BlockWeights& block, const HiddenStates& in) {
    return collect([&](const Append& append) {
      return runner.whole(block, in, nullptr,
                          [&](const Batch&, const model::BlockTrace&, const Tensor& h) { return append(h); });
    });
  }

  ThreadPool pool_{2};
  Context cx_{pool_};
  const std::string prefix_ = "model.layers.0.";

 private:
  // Rows of a run, in a file of their own.
  HiddenStates collect(const std::function<Status(const Append&)>& run) {
    const Path file = folder_ / fmt::format("{}.f32", files_++);
    auto writer = HiddenStatesWriter::create(file).value();
    int64_t tokens = 0, hidden = 0;
    const Status ran = run([&](const Tensor& rows) {
      tokens += rows.dim(0), hidden = rows.dim(1);
      return writer.append(rows);
    });
    EXPECT_TRUE(ran.ok()) << ran.text();
    EXPECT_TRUE(writer.commit().ok());
    return HiddenStates::open(file, tokens, hidden).value();
  }

  test::TemporaryFolder folder_;
  int files_ = 0;
};

Status ignore(const Batch&, const model::BlockTrace&, const Tensor&) {
  return {};
}

// llm-compressor summed 2 x x^T over its sixteen longest rows; rows 0 to 15 of the sum are kept.
TEST_F(Ptq, HessianOfTheFirstMlpIsLlmCompressors) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats all = calibration_texts();
  Chats chats;
  for (size_t row : {31, 62, 46, 10, 56, 4, 8, 52, 54, 38, 17, 43, 57, 24, 28, 0}) chats.push_back(all[row]);
  const HiddenStates in = embed(model.weights, chats);
  const std::vector<Batch> batches = batches_of(chats);
  LayerRunner runner(cx_, model.weights.config, 0, batches);
  model::BlockWeights block = model.weights.blocks[0];
  const auto sites = sites_of(model.weights.config, prefix_, block);
  Moments moments(cx_, sites, {false, false, true, false});
  ASSERT_TRUE(runner.whole(block, in, &moments.tap(), ignore).ok());
  const Tensor hessian = moments.finish(SiteKind::mlp_in);

  const auto golden = Safetensors::open(kGolden / "compressed_tensors/gptq_hessian_rows.safetensors").value();
  const Tensor rows = *golden.tensor(golden.tensors()[0]);
  double largest = 0, worst = 0;
  for (int64_t i = 0; i < rows.elements(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(rows.f32()[i])));
    const double sum = static_cast<double>(hessian.f32()[i]) * static_cast<double>(in.tokens());
    worst = std::max(worst, std::abs(sum - rows.f32()[i]));
  }
  EXPECT_LE(worst, 1e-4 * largest);
}

// ModelOpt's awq_lite, whose candidates are s = a^alpha / w^(1-alpha) and whose loss is that of one linear's output,
// summed over the conversations: on all linears of layer 0, both ends and the middle of the curve, to 1e-3.
TEST_F(Ptq, AwqLossesAreModelOpts) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats chats = calibration_texts();
  const HiddenStates in = embed(model.weights, chats);
  const std::vector<Batch> batches = batches_of(chats, 1);  // a conversation each: ModelOpt's batches
  LayerRunner runner(cx_, model.weights.config, 0, batches);
  const auto golden = Safetensors::open(kGolden / "modelopt/awq_lite/search_fp32.safetensors").value();
  const Json search = golden_json("modelopt/awq_lite/losses_layer0.json");

  struct Candidate {
    OwnedTensor values;  // FQ(W s) / s
    double expected = 0, loss = 0;
  };
  std::map<const ops::Linear*, std::vector<Candidate>> candidates;
  model::BlockWeights block = model.weights.blocks[0];
  const auto sites = sites_of(model.weights.config, prefix_, block);
  for (const auto& readers : sites) {
    for (const Reader& reader : readers) {
      if (!search.contains(reader.module)) continue;
      const ops::Linear& linear = *reader.linear;
      const auto stored = [&](const char* name) {
        const Tensor values = *golden.tensor(*golden.find(reader.module + name));
        return std::vector<float>(values.f32(), values.f32() + values.elements());
      };
      const std::vector<float> a = stored(".act_scale"), w = stored(".weight_scale");
      for (const char* alpha : {"0.0", "0.5", "1.0"}) {
        std::vector<float> s(a.size());
        for (size_t k = 0; k < s.size(); ++k) {
          const float power = std::stof(alpha), tiny = 0x1p-126f;
          s[k] = std::clamp(std::pow(a[k], power) / (std::pow(w[k], 1 - power) + tiny), 1e-4f, 1e4f);
        }
        const auto [low, high] = std::minmax_element(s.begin(), s.end());
        const float middle = std::sqrt(*low * *high);
        for (float& value : s) value /= middle;
        Candidate candidate{OwnedTensor(DType::f32, {linear.out, linear.in})};
        candidate.expected = search[reader.module]["loss_sum_over_batches"][alpha];
        const Tensor values = candidate.values.view;
        awq_scale_columns(cx_, linear.weight, s, values);
        ops::nvfp4_fake(cx_, values, nvfp4_tensor_scale(ops::tensor_amax(cx_, values).amax), values);
        for (int64_t i = 0; i < values.elements(); ++i) values.f32()[i] /= s[static_cast<size_t>(i % linear.in)];
        candidates[&linear].push_back(std::move(candidate));
      }
    }
  }
  model::Tap tap;
  tap.linear_input = [&](const ops::Linear& linear, const Tensor& x) {
    const auto found = candidates.find(&linear);
    if (found == candidates.end()) return;
    const Arena::Scope scope(cx_.arena);
    Tensor y = cx_.arena.f32({x.dim(0), linear.out}), changed = cx_.arena.f32(y.shape());
    ops::linear(cx_, x, linear, y);
    for (Candidate& candidate : found->second) {
      ops::Linear disturbed;
      disturbed.out = linear.out, disturbed.in = linear.in, disturbed.weight = candidate.values.view;
      ops::linear(cx_, x, disturbed, changed);
      double sum = 0;
      for (int64_t i = 0; i < y.elements(); ++i) {
        const double e = static_cast<double>(changed.f32()[i]) - y.f32()[i];
        sum += e * e;
      }
      candidate.loss += sum / static_cast<double>(y.elements());
    }
  };
  ASSERT_TRUE(runner.whole(block, in, &tap, ignore).ok());
  EXPECT_EQ(candidates.size(), search.size());
  for (const auto& [linear, list] : candidates) {
    for (const Candidate& candidate : list) EXPECT_NEAR(candidate.loss / candidate.expected, 1, 1e-3);
  }
}

// llm-compressor's AWQ, whose loss is that of the output of the mixer, of the MLP or of down_proj on its eight longest
// rows: all 20 candidates at the six mappings of layer 0 and of layer 3, the first with attention.
TEST_F(Ptq, AwqLossesAreLlmCompressors) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats all = calibration_texts();
  Chats chats;
  for (size_t row : {31, 62, 46, 10, 56, 4, 8, 52}) chats.push_back(all[row]);
  const std::vector<Batch> batches = batches_of(chats);
  const auto means = Safetensors::open(kGolden / "compressed_tensors/awq_w4a16.intermediates.safetensors").value();
  const auto mean = [&](const std::string& name) {
    const TensorInfo& info = *means.find(name);
    std::vector<float> out;  // kept in f64 or f32
    if (info.dtype == "F64") {
      const auto* values = reinterpret_cast<const double*>(means.bytes(info).data());
      for (int64_t k = 0; k < info.shape[0]; ++k) out.push_back(static_cast<float>(values[k]));
    } else {
      const Tensor values = *means.tensor(info);
      out.assign(values.f32(), values.f32() + values.elements());
    }
    return out;
  };
  const Json mappings = golden_json("compressed_tensors/awq_w4a16.intermediates.json");
  HiddenStates in = embed(model.weights, chats);
  for (int layer = 0; layer < 4; ++layer) {
    LayerRunner runner(cx_, model.weights.config, layer, batches);
    const model::BlockWeights& block = model.weights.blocks[static_cast<size_t>(layer)];
    const HiddenStates mid = behind_mixer(runner, block, in), out = behind_mlp(runner, block, mid);
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    for (const auto& [name, site] : {std::pair{"input_layernorm", SiteKind::mixer_in},
                                     {"post_attention_layernorm", SiteKind::mlp_in},
                                     {"mlp.up_proj", SiteKind::mlp_out}}) {
      if (layer != 0 && layer != 3) continue;
      const std::string mapping = prefix + name;
      const std::vector<float> x = mean("x_mean." + mapping), w = mean("w_mean." + mapping);
      for (int candidate = 0; candidate < kAwqCandidates; ++candidate) {
        const Arena::Scope scope(cx_.arena);
        const std::vector<float> s = awq_candidate(x, w, candidate);
        model::BlockWeights disturbed = block;
        const auto sites = sites_of(model.weights.config, prefix, disturbed);
        float shared = 0;  // of q, k, v and of gate, up
        for (const Reader& reader : sites[static_cast<size_t>(site)]) {
          if (reader.module.ends_with("_a") || reader.module.ends_with("_b")) continue;  // stay as they are
          ops::Linear& linear = *reader.linear;
          const Tensor values = cx_.arena.f32({linear.out, linear.in});
          awq_scale_columns(cx_, linear.weight, s, values);
          linear.weight = values;
          shared = std::max(shared, ops::tensor_amax(cx_, values).amax);
        }
        for (const Reader& reader : sites[static_cast<size_t>(site)]) {
          if (reader.module.ends_with("_a") || reader.module.ends_with("_b")) continue;
          ops::Linear& linear = *reader.linear;
          const Tensor values = linear.weight;
          const bool untied = reader.module.find("in_proj_") != std::string::npos;
          const auto theirs =
              test::CompressedTensorsArithmetic::of(false, untied ? ops::tensor_amax(cx_, values).amax : shared);
          for (float* block = values.f32(); block < values.f32() + values.elements(); block += kNvfp4Block) {
            const uint8_t scale = theirs.block_scale(block);
            for (int64_t i = 0; i < kNvfp4Block; ++i) block[i] = theirs.value(theirs.code(block[i], scale), scale);
          }
          for (int64_t i = 0; i < values.elements(); ++i) values.f32()[i] /= s[static_cast<size_t>(i % linear.in)];
          linear.format = ops::WeightFormat::f32;
          linear.weight = values;
        }
        const bool mixer = site == SiteKind::mixer_in;
        const HiddenStates got = mixer ? behind_mixer(runner, disturbed, in) : behind_mlp(runner, disturbed, mid);
        const Tensor ours = got.rows(0, got.tokens()), expected = (mixer ? mid : out).rows(0, got.tokens());
        double sum = 0;
        for (int64_t i = 0; i < ours.elements(); ++i) {
          const double e = static_cast<double>(ours.f32()[i]) - expected.f32()[i];
          sum += e * e;
        }
        const double theirs = mappings[mapping]["losses"][static_cast<size_t>(candidate)];
        EXPECT_NEAR(sum / static_cast<double>(ours.elements()) / theirs, 1, 1e-3) << mapping << ' ' << candidate;
      }
    }
    in = out;
  }
}

void expect_stored_hessian(const Tensor& ours) {
  const auto file = Safetensors::open(kGolden / "modelopt/gptq_parallel/out_proj.safetensors").value();
  const Tensor theirs = *file.tensor(*file.find("model.layers.0.linear_attn.out_proj.hessian"));
  double error = 0, energy = 0;
  for (int64_t i = 0; i < theirs.elements(); ++i) {
    const double h = theirs.f32()[i], e = ours.f32()[i] - h;
    error += e * e, energy += h * h;
  }
  EXPECT_LE(std::sqrt(error / energy), 1e-6);
}

// ModelOpt's GPTQ with `layerwise`: scales of `max`, one tensor scale for gate and up but two for in_proj_qkv and _z,
// damping .01. While it collects, all linears of the layer round their inputs and keep their weights; the next layer
// sees what the quantized one gives.
TEST_F(Ptq, GptqLossesAreModelOpts) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats chats = calibration_texts();
  const std::vector<Batch> batches = batches_of(chats);
  const Json amaxes = golden_json("modelopt/max_w4a4_fp32_load/amax_before_fusing.json");
  const Json losses = golden_json("modelopt/gptq_layerwise/values.json")["linears"];
  EXPECT_EQ(losses.size(), 12u);
  HiddenStates in = embed(model.weights, chats);
  size_t compared = 0;
  for (int layer = 0; layer < 2; ++layer) {
    const Arena::Scope scope(cx_.arena);
    LayerRunner runner(cx_, model.weights.config, layer, batches);
    model::BlockWeights block = model.weights.blocks[static_cast<size_t>(layer)];
    const auto sites = sites_of(model.weights.config, fmt::format("model.layers.{}.", layer), block);
    Moments moments(cx_, sites, {true, true, true, true});
    const auto input_scale = [&](const Reader& reader) {
      return nvfp4_tensor_scale(amaxes[reader.module]["input_amax"].get<float>()).ws2;
    };
    for (size_t site = 0; site < kSites; ++site) {
      moments.round_inputs(static_cast<SiteKind>(site), input_scale(sites[site].front()));
      for (const Reader& reader : sites[site]) {
        if (!losses.contains(reader.module)) continue;
        reader.linear->inputs = ops::InputRounding::nvfp4;
        reader.linear->input_scale = input_scale(reader);
      }
    }
    ASSERT_TRUE(runner.whole(block, in, &moments.tap(), ignore).ok());
    for (size_t site = 0; site < kSites; ++site) {
      const Tensor hessian = moments.finish(static_cast<SiteKind>(site));
      if (layer == 0 && static_cast<SiteKind>(site) == SiteKind::mixer_out) expect_stored_hessian(hessian);
      float shared = 0;
      for (const Reader& reader : sites[site]) {
        if (losses.contains(reader.module)) {
          shared = std::max(shared, ops::tensor_amax(cx_, reader.linear->weight).amax);
        }
      }
      for (const Reader& reader : sites[site]) {
        if (!losses.contains(reader.module)) continue;
        ops::Linear& linear = *reader.linear;
        const Tensor w = cx_.arena.f32({linear.out, linear.in});
        dense_values(cx_, linear.weight, w);
        const bool untied = reader.module.find("in_proj_") != std::string::npos;
        const Nvfp4TensorScale scale = nvfp4_tensor_scale(untied ? ops::tensor_amax(cx_, w).amax : shared);
        linear.block_scale = cx_.arena.take(DType::f8e4m3, {linear.out, linear.in / kNvfp4Block});
        linear.weight = cx_.arena.take(DType::u8, {linear.out, linear.in / 2});
        ops::nvfp4_scales_max(cx_, w, scale, linear.block_scale);
        const GptqReport report = gptq(cx_, w, hessian, scale, linear.block_scale, {.damping = .01}, linear.weight);
        linear.format = ops::WeightFormat::nvfp4;
        linear.tensor_scale = scale.ws2;
        const Json& theirs = losses[reader.module];
        EXPECT_NEAR(report.loss / theirs["relative_loss"].get<double>(), 1, .02) << reader.module;
        EXPECT_NEAR(report.nearest_loss / theirs["relative_loss_rtn"].get<double>(), 1, .02) << reader.module;
        ++compared;
      }
    }
    in = behind_layer(runner, block, in);
  }
  EXPECT_EQ(compared, losses.size());
}

}  // namespace
}  // namespace nibble::quantize
