#include "quantize/layerwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "checkpoint/test_folder.h"
#include "quantize/awq.h"
#include "quantize/calibrate.h"
#include "quantize/calibrated.h"
#include "quantize/moments.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using checkpoint::testing::TestCheckpoint;

using Chats = std::vector<std::vector<int32_t>>;

Chats random_chats(int64_t vocab, int count) {
  std::mt19937 random(5);
  Chats chats;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t>& chat = chats.emplace_back();
    for (int t = 0; t < 40 + 17 * i; ++t) chat.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab)));
  }
  return chats;
}

class Layerwise : public testing::Test {
 protected:
  void SetUp() override {
    TestCheckpoint::micro().write(source_);
    Result<checkpoint::LoadedModel> loaded = checkpoint::load_checkpoint(source_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().text();
    model_ = std::move(*loaded);
    chats_ = random_chats(model_.weights.config.vocab, 6);
  }

  Plan plan(const Recipe& recipe) {
    QuantizeOptions options;
    options.recipe = recipe;
    Result<Job> job = plan_folder(source_, options);
    EXPECT_TRUE(job.ok()) << job.status().text();
    jobs_.push_back(std::make_unique<Job>(std::move(*job)));
    return jobs_.back()->plan;
  }

  Path work(const std::string& name) {
    const Path path = folder_.path() / name;
    std::filesystem::create_directories(path);
    return path;
  }

  // Every file of a finished run.
  static std::map<std::string, std::string> files(const Path& work) {
    std::map<std::string, std::string> contents;
    for (const auto& entry : std::filesystem::directory_iterator(work)) {
      contents[entry.path().filename()] = *read_file(entry.path());
    }
    return contents;
  }

  test::TemporaryFolder folder_;
  const Path source_ = folder_.path() / "source";
  checkpoint::LoadedModel model_;
  Chats chats_;
  std::vector<std::unique_ptr<Job>> jobs_;  // plans point into them
  ThreadPool pool_{2};
  Context cx_{pool_};
};

Recipe gptq_recipe() {
  Recipe recipe = uniform_recipe(Scales::mse, Inputs::a16);
  recipe.rounding = Rounding::gptq;
  recipe.act_order = true;
  return recipe;
}

TEST_F(Layerwise, MomentsAreTheSumOfProducts) {
  const int64_t T = 37, K = 48, M = 32;
  OwnedTensor x(DType::f32, {T, K}), y(DType::f32, {T, M}), h(DType::f32, {K, M});
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : x.view.f32_span()) value = normal(random);
  for (float& value : y.view.f32_span()) value = normal(random);
  add_moment(cx_, x.view, y.view, h.view);
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t m = 0; m < M; ++m) {
      double sum = 0;
      for (int64_t t = 0; t < T; ++t) sum += static_cast<double>(x.view.f32()[t * K + k]) * y.view.f32()[t * M + m];
      ASSERT_NEAR(h.view.f32()[k * M + m], sum, 1e-4);
    }
  }
}

TEST_F(Layerwise, BatchesHoldWholeConversations) {
  const std::vector<Batch> batches = batches_of(chats_, 100);
  int64_t row = 0, sequences = 0;
  for (const Batch& batch : batches) {
    EXPECT_EQ(batch.begin, row);
    int64_t tokens = 0;
    for (int64_t length : batch.lengths) tokens += length;
    EXPECT_EQ(tokens, batch.tokens());
    EXPECT_TRUE(batch.tokens() <= 100 || batch.lengths.size() == 1);
    sequences += static_cast<int64_t>(batch.lengths.size());
    row = batch.end;
  }
  EXPECT_EQ(sequences, static_cast<int64_t>(chats_.size()));
}

TEST_F(Layerwise, SolvesEveryPlannedLinear) {
  const Recipe recipe = gptq_recipe();
  const Plan made = plan(recipe);
  const Path at = work("gptq");
  const Status status = solve_layers(cx_, model_.weights, made, chats_, {recipe, {}, at, {}});
  ASSERT_TRUE(status.ok()) << status.text();
  SolvedLayers solved(at, model_.weights);
  for (const PlannedTensor& tensor : made.tensors) {
    if (tensor.module.empty()) continue;
    const Result<const SolvedModule*> of = solved.linear(tensor.module);
    ASSERT_TRUE(of.ok()) << of.status().text();
    EXPECT_EQ(*of != nullptr, tensor.quantized()) << tensor.module;
    if (*of == nullptr) continue;
    EXPECT_GT((*of)->loss, 0) << tensor.module;
    EXPECT_LT((*of)->loss, 0.02) << tensor.module;
    EXPECT_EQ((*of)->note, "") << tensor.module;
  }
}

// What is feasible to every layer's solver is the same whatever the number of threads, and wherever a run was stopped.
TEST_F(Layerwise, AnInterruptedRunGoesOnToTheSameFiles) {
  const Recipe recipe = gptq_recipe();
  const Plan made = plan(recipe);
  const Path whole = work("whole"), broken = work("broken");
  ASSERT_TRUE(solve_layers(cx_, model_.weights, made, chats_, {recipe, {}, whole, {}}).ok());
  for (int stop = 1; stop < 4; ++stop) {
    ThreadPool one(1);
    Context cx(one);
    cx.cancel = CancelToken();
    const Status status =
        solve_layers(cx, model_.weights, made, chats_, {recipe, {}, broken, [&](const ProgressUpdate& update) {
                                                          if (static_cast<int>(update.done) == stop) cx.cancel.cancel();
                                                        }});
    EXPECT_EQ(status.code(), Code::cancelled);
  }
  ASSERT_TRUE(solve_layers(cx_, model_.weights, made, chats_, {recipe, {}, broken, {}}).ok());
  EXPECT_EQ(files(broken), files(whole));
  EXPECT_EQ(files(whole).size(), static_cast<size_t>(model_.weights.config.layers + 1)) << "nothing else is left";
}

TEST_F(Layerwise, SolutionsComeBackFromTheirFiles) {
  LayerSolution solution;
  SolvedModule of{"model.layers.0.mlp.up_proj", {}, 0.25, "a note"};
  of.solved.linear.format = ops::WeightFormat::nvfp4;
  of.solved.linear.out = 2, of.solved.linear.in = 32;
  of.solved.linear.weight = solution.own(DType::u8, {2, 16});
  of.solved.linear.block_scale = solution.own(DType::f8e4m3, {2, 2});
  of.solved.linear.tensor_scale = 0.1f;
  of.solved.linear.weight.u8()[3] = 0x5A;
  of.solved.stats.energy = 1.0 / 3;
  solution.linears.push_back(of);
  const Tensor norm = solution.own(DType::bf16, {5});
  norm.bf16()[4] = 0x3F81;
  solution.tensors.emplace_back("model.layers.0.input_layernorm.weight", norm);
  const Path file = folder_.path() / "layer.safetensors";
  ASSERT_TRUE(solution.save(file).ok());
  const Result<LayerSolution> loaded = LayerSolution::load(file);
  ASSERT_TRUE(loaded.ok()) << loaded.status().text();
  const SolvedModule* back = loaded->find(of.module);
  ASSERT_NE(back, nullptr);
  EXPECT_EQ(back->solved.linear.weight.u8()[3], 0x5A);
  EXPECT_EQ(back->solved.linear.tensor_scale, 0.1f);
  EXPECT_EQ(back->solved.stats.energy, 1.0 / 3);
  EXPECT_EQ(back->loss, 0.25);
  EXPECT_EQ(back->note, "a note");
  ASSERT_NE(loaded->tensor("model.layers.0.input_layernorm.weight"), nullptr);
  EXPECT_EQ(loaded->tensor("model.layers.0.input_layernorm.weight")->bf16()[4], 0x3F81);
  EXPECT_EQ(loaded->tensor("model.layers.0.mlp.up_proj.weight"), nullptr);
}

// Scales between 1/8 and 8, folded at every site of every layer: the logits stay. Where a fold forgets the 1 of the
// norm or the unquantized readers they do not.
TEST_F(Layerwise, AFoldKeepsTheFunction) {
  const std::vector<float> before = checkpoint::testing::logits(model_);
  float largest = 0;
  for (float value : before) largest = std::max(largest, std::abs(value));
  const Recipe recipe = uniform_recipe(Scales::max, Inputs::a16);
  const Plan made = plan(recipe);
  const std::map<std::string, float> no_amax;
  const SiteSolver solver(cx_, made, recipe, no_amax);
  std::mt19937 random(3);
  std::uniform_real_distribution<float> exponent(-3, 3);
  enum class Fault { none, plain_norm, gates };
  for (const Fault fault : {Fault::none, Fault::plain_norm, Fault::gates}) {
    checkpoint::LoadedModel folded = checkpoint::load_checkpoint(source_).value();
    model::Weights& weights = folded.weights;
    std::vector<LayerSolution> solutions(static_cast<size_t>(weights.config.layers));
    const Arena::Scope scope(cx_.arena);
    for (size_t layer = 0; layer < solutions.size(); ++layer) {
      model::BlockWeights& block = weights.blocks[layer];
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      for (const SiteKind site : {SiteKind::mixer_in, SiteKind::mlp_in, SiteKind::mlp_out}) {
        const int64_t K = site == SiteKind::mlp_out ? weights.config.intermediate : weights.config.hidden;
        std::vector<float> s(static_cast<size_t>(K));
        for (float& value : s) value = std::exp2(exponent(random));
        const Tensor norm = site == SiteKind::mixer_in ? block.input_norm : block.post_norm;
        std::optional<ops::Linear> gate;
        if (block.gdn) gate = block.gdn->in_proj_a;
        awq_fold(cx_, solver, weights.config, prefix, site, s, block, solutions[layer]);
        if (fault == Fault::plain_norm && site == SiteKind::mixer_in) {
          for (int64_t k = 0; k < K; ++k) block.input_norm.f32()[k] = norm.f32()[k] / s[static_cast<size_t>(k)];
        }
        if (fault == Fault::gates && site == SiteKind::mixer_in && gate) block.gdn->in_proj_a = *gate;
      }
    }
    const std::vector<float> after = checkpoint::testing::logits(folded);
    float difference = 0;
    for (size_t i = 0; i < before.size(); ++i) difference = std::max(difference, std::abs(after[i] - before[i]));
    if (fault == Fault::none) {
      EXPECT_LE(difference, 1e-4f * largest);
    } else {
      EXPECT_GT(difference, 1e-2f * largest);
    }
  }
}

TEST_F(Layerwise, EveryStrategyWritesAFolderThatLoads) {
  const std::string a4 = "_a4";  // with inputs rounded, too
  for (const std::string name :
       {"local_hessian", "gptq", "awq_lite", "awq_clip", "svdquant", "auto_mixed", "gptq_a4", "auto_mixed_a4"}) {
    const std::string strategy = name.ends_with(a4) ? name.substr(0, name.size() - a4.size()) : name;
    Result<Recipe> recipe = find_recipe(strategy);
    ASSERT_TRUE(recipe.ok()) << recipe.status().text();
    for (Rule& rule : recipe->rules) {
      if (strategy != name) rule.inputs = Inputs::a4;
    }
    recipe->rank = 4;
    CalibratedOptions options;
    options.quantize.recipe = *recipe;
    if (strategy == "auto_mixed") options.budget.effective_bits = 8;
    const Path output = folder_.path() / name;
    Result<PartialFolder> partial = PartialFolder::open(output, "key");
    ASSERT_TRUE(partial.ok()) << partial.status().text();
    const Result<CalibratedReport> report = quantize_with_data(cx_, source_, *partial, model_.weights, chats_, options);
    ASSERT_TRUE(report.ok()) << name << ": " << report.status().text();
    ASSERT_TRUE(partial->commit().ok()) << name;
    if (strategy == "auto_mixed") {
      ASSERT_TRUE(report->mixed);
      EXPECT_LE(report->mixed->bits, 8);
      EXPECT_LE(report->report.effective_bits, 8.01);
      EXPECT_GT(report->report.effective_bits, 6);
    }
    Result<checkpoint::LoadedModel> loaded = checkpoint::load_checkpoint(output);
    ASSERT_TRUE(loaded.ok()) << name << ": " << loaded.status().text();
    for (float value : checkpoint::testing::logits(*loaded)) ASSERT_TRUE(std::isfinite(value)) << name;
  }
}

// Both scores of a format are sums of squares or divergences: none for the format of the source, more for fewer bits.
TEST_F(Layerwise, FewerBitsDisturbMore) {
  const Plan made = plan(uniform_recipe(Scales::mse, Inputs::a16));
  Recipe recipe = uniform_recipe(Scales::mse, Inputs::a16);
  const Path at = work("uniform");
  ASSERT_TRUE(solve_layers(cx_, model_.weights, made, chats_, {recipe, {}, at, {}}).ok());
  SolvedLayers solved(at, model_.weights);
  for (const Sensitivity kind : {Sensitivity::kl, Sensitivity::gradient}) {
    std::vector<FormatGroup> groups = format_groups(made);
    const Format formats[] = {Format::nvfp4, Format::unchanged};
    const auto in_format = [&](const std::string& module, Format format) -> Result<ops::Linear> {
      if (format == Format::nvfp4) {
        NIBBLE_TRY(of, solved.linear(module));
        return of->solved.linear;
      }
      ops::Linear source;
      model_.weights.for_each_linear([&](std::string_view name, ops::Linear& linear) {
        if (name == module) source = linear;
      });
      return source;
    };
    const Status status = measure_sensitivity(cx_, model_.weights, chats_, kind, formats, in_format, groups, {});
    ASSERT_TRUE(status.ok()) << status.text();
    EXPECT_EQ(groups.size(), static_cast<size_t>(made.groups));
    for (const FormatGroup& group : groups) {
      EXPECT_GT(group.scores[0], 0) << group.name;
      EXPECT_LE(group.scores[1], 1e-9 * group.scores[0]) << group.name;
    }
  }
}

}  // namespace
}  // namespace nibble::quantize
