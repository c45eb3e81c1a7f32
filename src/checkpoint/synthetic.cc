#include "checkpoint/synthetic.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "checkpoint/fingerprint.h"
#include "checkpoint/random_fill.h"
#include "checkpoint/synthetic_tokenizer.h"
#include "io/safetensors_writer.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr int64_t kGrain = 1 << 20;  // elements per piece of parallel work

void fill_parallel(ThreadPool& pool, model::TensorKind kind, DType type, uint64_t seed, uint64_t stream, int64_t begin,
                   int64_t end, void* out) {
  pool.parallel_for(end - begin, kGrain, [&](int64_t from, int64_t to) {
    fill_random(kind, type, seed, stream, begin + from, begin + to,
                static_cast<std::byte*>(out) + static_cast<size_t>(from) * size_of(type));
  });
}

bool is_tied(const model::Config& config) {
  return config.tie_embeddings.value_or(false);
}

bool is_quantized(ops::WeightFormat format, std::string_view module, int64_t in, bool head) {
  return format == ops::WeightFormat::nvfp4 && in % kNvfp4Block == 0 && (head || module != "lm_head") &&
         !module.ends_with("in_proj_a") && !module.ends_with("in_proj_b");
}

DType matrix_type(ops::WeightFormat format) {
  return format == ops::WeightFormat::f32 ? DType::f32 : DType::bf16;
}

uint64_t memory_bytes(const model::Config& config, ops::WeightFormat format, bool head) {
  uint64_t bytes = 0;
  for (const model::TensorSlot& slot : model::text_slots(config, model::kTextPrefix, is_tied(config))) {
    const auto n = static_cast<uint64_t>(slot.shape.elements());
    if (slot.kind == model::TensorKind::linear &&
        is_quantized(format, model::module_name(slot.name), slot.shape[1], head)) {
      bytes += n / 2 + n / kNvfp4Block;
    } else {
      const bool matrix = slot.kind == model::TensorKind::linear || slot.kind == model::TensorKind::embedding;
      bytes += n * size_of(matrix ? matrix_type(format) : DType::f32);
    }
  }
  return bytes;
}

/// Fills every slot of a blank model. Streams are numbered in table order, as in the written files.
class RandomModel : public model::WeightsVisitor {
 public:
  RandomModel(model::Weights& weights, ops::WeightFormat format, ThreadPool& pool, const SyntheticOptions& options)
      : weights_(weights),
        format_(format),
        pool_(pool),
        options_(options),
        total_bytes_(memory_bytes(weights.config, format, options.quantized_head)) {}

  void linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) override {
    const uint64_t stream = stream_++;
    if (options_.cancel.cancelled()) return;
    if (is_quantized(format_, name, in, options_.quantized_head)) {
      const Tensor codes = make(DType::u8, {out, in / 2}), scales = make(DType::f8e4m3, {out, in / kNvfp4Block});
      if (!options_.shapes_only) fill_blocks(codes, scales, stream);
      linear = {.format = ops::WeightFormat::nvfp4,
                .out = out,
                .in = in,
                .weight = codes,
                .block_scale = scales,
                .tensor_scale = kRandomTensorScale};
    } else {
      linear = model::dense_linear(dense(model::TensorKind::linear, matrix_type(format_), {out, in}, stream));
    }
    advance(name, linear.weight_bytes());
  }

  void tensor(const std::string& name, Tensor& tensor, const Shape& shape, model::TensorKind kind) override {
    const uint64_t stream = stream_++;
    if (options_.cancel.cancelled()) return;
    const DType type = kind == model::TensorKind::embedding ? matrix_type(format_) : DType::f32;
    const Shape memory = kind == model::TensorKind::conv ? Shape{shape[0], shape[2]} : shape;
    tensor = dense(kind, type, memory, stream);
    advance(name, tensor.bytes());
  }

 private:
  void fill_blocks(const Tensor& codes, const Tensor& scales, uint64_t stream) {
    pool_.parallel_for(codes.elements(), kGrain, [&](int64_t begin, int64_t end) {
      fill_random_codes(options_.seed, stream, begin, end, codes.u8() + begin);
    });
    pool_.parallel_for(scales.elements(), kGrain, [&](int64_t begin, int64_t end) {
      fill_random_scales(options_.seed, stream, begin, end, scales.u8() + begin);
    });
  }

  Tensor make(DType type, const Shape& shape) {
    // A tensor without an address would count as one that is not there.
    static std::byte nowhere;
    if (options_.shapes_only) return {&nowhere, type, shape};
    return weights_.own(Buffer::for_tensor(type, shape)).tensor(type, shape);
  }

  Tensor dense(model::TensorKind kind, DType type, const Shape& shape, uint64_t stream) {
    const Tensor t = make(type, shape);
    if (!options_.shapes_only) fill_parallel(pool_, kind, type, options_.seed, stream, 0, t.elements(), t.raw());
    return t;
  }

  void advance(const std::string& name, uint64_t bytes) {
    done_bytes_ += bytes;
    report(options_.progress, done_bytes_, total_bytes_, name);
  }

  model::Weights& weights_;
  ops::WeightFormat format_;
  ThreadPool& pool_;
  const SyntheticOptions& options_;
  uint64_t stream_ = 0, done_bytes_ = 0, total_bytes_;
};

Generation generation_of(const model::Config& config) {
  Generation out;
  out.stop_ids = config.eos_ids;
  if (config.vocab >= kSyntheticIdLimit) out.stop_ids = {kSyntheticEndOfText, kSyntheticImEnd};
  return out;
}

Status write_tensors(const Path& folder, const model::Config& config, ThreadPool& pool,
                     const SyntheticOptions& options) {
  std::vector<model::TensorSlot> slots = model::text_slots(config, model::kTextPrefix, is_tied(config));
  for (model::TensorSlot& slot : model::mtp_slots(config, config.mtp_layers.value_or(0))) {
    if (config.mtp_layers.value_or(0) > 0) slots.push_back(std::move(slot));
  }
  std::vector<TensorDeclaration> declarations;
  declarations.reserve(slots.size());
  for (const model::TensorSlot& slot : slots) declarations.emplace_back(slot.name, slot.dtype, slot.shape);
  NIBBLE_TRY(writer, ShardedSafetensorsWriter::create(folder, std::move(declarations), {{"format", "pt"}},
                                                      options.shard_bytes));
  constexpr int64_t kPiece = 8 << 20;  // elements in memory at a time: at most 32 MB
  std::vector<std::byte> piece;
  uint64_t done = 0;
  for (size_t stream = 0; stream < slots.size(); ++stream) {
    const model::TensorSlot& slot = slots[stream];
    const int64_t n = slot.shape.elements();
    for (int64_t begin = 0; begin < n; begin += kPiece) {
      if (options.cancel.cancelled()) return cancelled("writing: stopped at {}", slot.name);
      const int64_t end = std::min(n, begin + kPiece);
      piece.resize(static_cast<size_t>(end - begin) * size_of(slot.dtype));
      fill_parallel(pool, slot.kind, slot.dtype, options.seed, stream, begin, end, piece.data());
      NIBBLE_RETURN_IF_ERROR(writer.append(slot.name, piece));
      done += piece.size();
      report(options.progress, done, writer.total_bytes(), slot.name);
    }
  }
  return writer.commit();
}

}  // namespace

Result<LoadedModel> synthetic_model(const model::Config& config, ops::WeightFormat format, ThreadPool& pool,
                                    const SyntheticOptions& options) {
  const uint64_t needed = memory_bytes(config, format, options.quantized_head);
  const auto present =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (needed > present && !options.shapes_only) {
    return out_of_memory("synthetic model: expected at most {} bytes of memory, got weights of {}", present, needed)
        .with_hint("choose a smaller --random size or the nvfp4 format");
  }
  LoadedModel out;
  out.weights = model::blank_weights(config, model::kTextPrefix, is_tied(config));
  RandomModel filler(out.weights, format, pool, options);
  model::visit_weights(out.weights, filler);
  if (options.cancel.cancelled()) return cancelled("synthetic model: stopped");
  if (out.weights.tied) out.weights.lm_head = model::dense_linear(out.weights.embed);
  out.generation = generation_of(config);
  if (format == ops::WeightFormat::nvfp4) out.quantization.algo = "W4A16_NVFP4";
  out.format = summarize(out.weights);
  const std::string text = model::config_json(config).dump(),
                    kind = fmt::format("{} {}", out.format.format, options.seed);
  out.fingerprint = fingerprint(std::array<std::string_view, 2>{text, kind});
  return out;
}

Status write_synthetic_checkpoint(const Path& folder, const model::Config& config, ThreadPool& pool,
                                  const SyntheticOptions& options) {
  if (config.vocab < kSyntheticIdLimit) {
    return invalid_argument("vocab_size: expected at least {} for the synthetic tokenizer, got {}", kSyntheticIdLimit,
                            config.vocab);
  }
  NIBBLE_TRY(output, OutputFolder::create(folder));
  NIBBLE_RETURN_IF_ERROR(write_tensors(output.path(), config, pool, options));
  const Json generation = {{"do_sample", true},
                           {"eos_token_id", {kSyntheticImEnd, kSyntheticEndOfText}},
                           {"pad_token_id", kSyntheticEndOfText},
                           {"temperature", 0.6},
                           {"top_k", 20},
                           {"top_p", 0.95}};
  NIBBLE_RETURN_IF_ERROR(write_file(output.path() / "config.json", model::config_json(config).dump(2) + "\n"));
  NIBBLE_RETURN_IF_ERROR(write_file(output.path() / "generation_config.json", generation.dump(2) + "\n"));
  NIBBLE_RETURN_IF_ERROR(write_synthetic_tokenizer(output.path(), config.max_positions));
  return output.commit();
}

}  // namespace nibble::checkpoint
