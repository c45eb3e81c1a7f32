#include "quantize/layerwise.h"

#include <algorithm>

#include "model/forward.h"
#include "ops/embed/embed.h"
#include "ops/norm/rms_norm.h"
#include "quantize/awq.h"
#include "quantize/layer_runner.h"
#include "quantize/moments.h"
#include "quantize/site_solver.h"

namespace nibble::quantize {
namespace {

constexpr const char* kHead = "lm_head";

Path layer_file(const Path& work, int64_t layer) {
  return work / fmt::format("layer-{:04d}.safetensors", layer);
}
Path hidden_file(const Path& work, int64_t layer) {
  return work / fmt::format("hidden-{:04d}.f32", layer);
}
// What the unquantized layers give, for signround.
Path reference_file(const Path& work, int64_t layer) {
  return layer == 0 ? hidden_file(work, 0) : work / fmt::format("reference-{:04d}.f32", layer);
}

void remove_streams(const Path& work, int64_t layer) {
  std::error_code ignored;
  std::filesystem::remove(hidden_file(work, layer), ignored);
  std::filesystem::remove(reference_file(work, layer), ignored);
}

bool is_there(const Path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

/// Gives the mapped pages of a tensor back.
void drop(const model::Weights& weights, const Tensor& tensor) {
  const auto* data = static_cast<const std::byte*>(tensor.raw());
  for (const MappedFile& file : weights.mappings) {
    const std::span<const std::byte> bytes = file.bytes();
    if (data < bytes.data() || data >= bytes.data() + bytes.size()) continue;
    file.drop(static_cast<size_t>(data - bytes.data()), tensor.bytes());
  }
}

class Layerwise {
 public:
  Layerwise(Context& cx, const model::Weights& weights, const Plan& plan, std::span<const std::vector<int32_t>> chats,
            const LayerwiseOptions& options)
      : cx_(cx),
        weights_(weights),
        plan_(plan),
        chats_(chats),
        options_(options),
        batches_(batches_of(chats)),
        input_amax_(options.input_amax),
        solver_(cx, plan, options.recipe, input_amax_) {
    for (const Batch& batch : batches_) tokens_ += batch.tokens();
  }

  Status run() {
    const int64_t layers = weights_.config.layers;
    int64_t layer = 0;
    while (layer < layers && is_there(layer_file(options_.work, layer))) ++layer;
    if (layer == 0) NIBBLE_RETURN_IF_ERROR(write_embeddings());
    for (; layer < layers; ++layer) {
      report(options_.progress, static_cast<uint64_t>(layer), static_cast<uint64_t>(layers),
             fmt::format("layer {}", layer));
      NIBBLE_RETURN_IF_ERROR(solve_layer(static_cast<int>(layer)));
    }
    report(options_.progress, static_cast<uint64_t>(layers), static_cast<uint64_t>(layers), "head");
    return is_there(layer_file(options_.work, layers)) ? Status() : solve_head();
  }

 private:
  bool sequential() const { return options_.recipe.rounding != Rounding::nearest; }

  bool trains() const { return options_.recipe.rounding == Rounding::signround; }
  bool needs_moments() const { return solver_.needs_moments() || (trains() && options_.signround_from_gptq); }

  Status write_embeddings() {
    NIBBLE_TRY(out, HiddenStatesWriter::create(hidden_file(options_.work, 0)));
    for (const std::vector<int32_t>& chat : chats_) {
      const Arena::Scope scope(cx_.arena);
      Tensor h = cx_.arena.f32({static_cast<int64_t>(chat.size()), weights_.config.hidden});
      ops::embed(cx_, chat, weights_.embed, h);
      NIBBLE_RETURN_IF_ERROR(out.append(h));
    }
    return out.commit();
  }

  Status solve_layer(int layer) {
    const std::string prefix = fmt::format("{}layers.{}.", weights_.prefix, layer);
    NIBBLE_TRY(in, HiddenStates::open(hidden_file(options_.work, layer), tokens_, weights_.config.hidden));
    LayerRunner runner(cx_, weights_.config, layer, batches_);
    LayerSolution solution;
    model::BlockWeights block = weights_.blocks[static_cast<size_t>(layer)];
    if (trains()) NIBBLE_RETURN_IF_ERROR(write_reference(runner, layer, block));
    const Arena::Scope scope(cx_.arena);  // of the weights that a transform makes
    if (options_.recipe.transform != Transform::none) {
      AwqLayer awq(cx_, solver_, weights_.config, runner, prefix, options_.work);
      NIBBLE_RETURN_IF_ERROR(awq.run(in, block, solution, input_amax_));
    }
    const model::BlockWeights unquantized = block;
    NIBBLE_RETURN_IF_ERROR(solve_sites(runner, prefix, in, block, solution));
    if (trains()) NIBBLE_RETURN_IF_ERROR(train(layer, prefix, in, unquantized, block, solution));
    NIBBLE_TRY(out, HiddenStatesWriter::create(hidden_file(options_.work, layer + 1)));
    NIBBLE_RETURN_IF_ERROR(runner.whole(
        block, in, nullptr, [&](const Batch&, const model::BlockTrace&, const Tensor& h) { return out.append(h); }));
    NIBBLE_RETURN_IF_ERROR(out.commit());
    NIBBLE_RETURN_IF_ERROR(solution.save(layer_file(options_.work, layer)));
    remove_streams(options_.work, layer);
    model::BlockWeights source = weights_.blocks[static_cast<size_t>(layer)];
    for (const auto& readers : sites_of(weights_.config, prefix, source)) {
      for (const Reader& reader : readers) drop(weights_, reader.linear->weight);
    }
    return {};
  }

  /// The layer's output in the unquantized model.
  Status write_reference(LayerRunner& runner, int layer, const model::BlockWeights& block) {
    NIBBLE_TRY(in, HiddenStates::open(reference_file(options_.work, layer), tokens_, weights_.config.hidden));
    NIBBLE_TRY(out, HiddenStatesWriter::create(reference_file(options_.work, layer + 1)));
    NIBBLE_RETURN_IF_ERROR(runner.whole(
        block, in, nullptr, [&](const Batch&, const model::BlockTrace&, const Tensor& h) { return out.append(h); }));
    return out.commit();
  }

  Status train(int layer, const std::string& prefix, const HiddenStates& in, const model::BlockWeights& unquantized,
               const model::BlockWeights& block, LayerSolution& solution) {
    const Path file = reference_file(options_.work, layer + 1);
    NIBBLE_TRY(reference, HiddenStates::open(file, tokens_, weights_.config.hidden));
    NIBBLE_TRY(result, signround(cx_, weights_.config, layer, prefix, batches_, in, reference, unquantized, block,
                                 std::move(starts_), options_.signround, solution));
    starts_.clear();
    report(options_.progress, static_cast<uint64_t>(layer), static_cast<uint64_t>(weights_.config.layers),
           fmt::format("layer {}: error {:.3g} -> {:.3g} at step {}", layer, result.first_loss, result.loss,
                       result.iteration));
    return {};
  }

  /// Solves what the plan quantizes. Where errors are compensated, `block` holds the quantized linears afterwards, so
  /// later sites and layers see what was left.
  Status solve_sites(LayerRunner& runner, const std::string& prefix, const HiddenStates& in, model::BlockWeights& block,
                     LayerSolution& solution) {
    std::array<std::vector<Reader>, kSites> sites = sites_of(weights_.config, prefix, block);
    std::array<bool, kSites> wanted{};
    for (size_t i = 0; i < kSites; ++i) {
      wanted[i] = needs_moments() && std::any_of(sites[i].begin(), sites[i].end(),
                                                 [&](const Reader& reader) { return solver_.is_nvfp4(reader); });
    }
    if (!sequential()) return collect_and_solve(runner, in, block, sites, wanted, {0, kSites}, solution);
    for (size_t i = 0; i < kSites; ++i) {
      std::array<bool, kSites> one{};
      one[i] = wanted[i];
      const size_t before = solution.linears.size();
      NIBBLE_RETURN_IF_ERROR(collect_and_solve(runner, in, block, sites, one, {i, i + 1}, solution));
      for (size_t k = before; k < solution.linears.size(); ++k) {
        for (const Reader& reader : sites[i]) {
          if (reader.module == solution.linears[k].module) *reader.linear = solution.linears[k].solved.linear;
        }
      }
    }
    return {};
  }

  struct Range {
    size_t begin, end;
  };
  Status collect_and_solve(LayerRunner& runner, const HiddenStates& in, const model::BlockWeights& block,
                           const std::array<std::vector<Reader>, kSites>& sites, const std::array<bool, kSites>& wanted,
                           Range range, LayerSolution& solution) {
    Moments moments(cx_, sites, wanted);
    bool any = false;
    for (size_t i = 0; i < kSites; ++i) {
      any = any || wanted[i];
      if (wanted[i]) moments.round_inputs(static_cast<SiteKind>(i), solver_.input_scale(sites[i]));
    }
    if (any) {
      NIBBLE_RETURN_IF_ERROR(runner.whole(
          block, in, &moments.tap(), [](const Batch&, const model::BlockTrace&, const Tensor&) { return Status(); }));
    }
    for (size_t i = range.begin; i < range.end; ++i) {
      const Tensor hessian = wanted[i] ? moments.finish(static_cast<SiteKind>(i)) : Tensor();
      NIBBLE_RETURN_IF_ERROR(solve(sites[i], hessian, solution));
    }
    return {};
  }

  Status solve(std::span<const Reader> readers, const Tensor& hessian, LayerSolution& solution) {
    const size_t first = solution.linears.size();
    NIBBLE_RETURN_IF_ERROR(solver_.solve(readers, hessian, solution));
    if (!trains()) return {};
    const GptqOptions gptq{
        .damping = options_.recipe.damping, .act_order = options_.recipe.act_order, .measure = false};
    signround_start(cx_, readers, options_.signround_from_gptq ? hessian : Tensor(), gptq, first, solution, starts_);
    return {};
  }

  Status solve_head() {
    LayerSolution solution;
    ops::Linear head = weights_.lm_head;
    Recipe recipe = options_.recipe;  // no layer's output to train against: errors are made up for instead
    if (trains()) recipe.rounding = Rounding::gptq;
    SiteSolver solver(cx_, plan_, recipe, input_amax_);
    const std::vector<Reader> readers = {{kHead, &head}};
    const int64_t layers = weights_.config.layers;
    if (solver.is_nvfp4(readers.front())) {
      NIBBLE_TRY(in, HiddenStates::open(hidden_file(options_.work, layers), tokens_, weights_.config.hidden));
      OwnedTensor hessian;
      if (solver.needs_moments()) {
        hessian = OwnedTensor(DType::f32, {head.in, head.in});
        for (const Batch& batch : batches_) {
          const Arena::Scope scope(cx_.arena);
          Tensor x = cx_.arena.f32({batch.tokens(), weights_.config.hidden});
          ops::rms_norm(cx_, in.rows(batch.begin, batch.end), weights_.final_norm, weights_.config.norm_eps,
                        ops::Gain::one_plus, x);
          add_moment(cx_, x, x, hessian.view);
        }
        for (float& value : hessian.view.f32_span()) value *= 2.0f / static_cast<float>(tokens_);
      }
      NIBBLE_RETURN_IF_ERROR(solver.solve(readers, hessian.view, solution));
    }
    NIBBLE_RETURN_IF_ERROR(solution.save(layer_file(options_.work, layers)));
    remove_streams(options_.work, layers);
    return {};
  }

  Context& cx_;
  const model::Weights& weights_;
  const Plan& plan_;
  std::span<const std::vector<int32_t>> chats_;
  const LayerwiseOptions& options_;
  const std::vector<Batch> batches_;
  int64_t tokens_ = 0;
  std::map<std::string, float> input_amax_;  // as folding changes it
  SiteSolver solver_;
  std::vector<SignroundStart> starts_;  // of the layer at hand
};

}  // namespace

bool needs_layerwise(const Recipe& recipe) {
  return recipe.scales == Scales::local_hessian || recipe.transform != Transform::none ||
         recipe.rounding != Rounding::nearest;
}

Status solve_layers(Context& cx, const model::Weights& weights, const Plan& plan,
                    std::span<const std::vector<int32_t>> chats, const LayerwiseOptions& options) {
  NIBBLE_CHECK(cx.numeric == Numeric::exact);
  return Layerwise(cx, weights, plan, chats, options).run();
}

SolvedLayers::SolvedLayers(Path work, const model::Weights& weights)
    : work_(std::move(work)), prefix_(weights.prefix + "layers."), layers_(weights.config.layers) {}

Result<const LayerSolution*> SolvedLayers::layer_of(const std::string& name) {
  int64_t layer = -1;
  if (name.starts_with(kHead)) {
    layer = layers_;
  } else if (name.starts_with(prefix_)) {
    layer = std::strtoll(name.c_str() + prefix_.size(), nullptr, 10);
  }
  if (layer < 0 || layer > layers_) return static_cast<const LayerSolution*>(nullptr);
  if (layer != loaded_) {
    NIBBLE_TRY(solution, LayerSolution::load(layer_file(work_, layer)));
    solution_ = std::move(solution);
    loaded_ = layer;
  }
  return &solution_;
}

Result<const SolvedModule*> SolvedLayers::linear(const std::string& module) {
  NIBBLE_TRY(layer, layer_of(module));
  return layer == nullptr ? nullptr : layer->find(module);
}

Result<const Tensor*> SolvedLayers::tensor(const std::string& name) {
  NIBBLE_TRY(layer, layer_of(name));
  return layer == nullptr ? nullptr : layer->tensor(name);
}

}  // namespace nibble::quantize
