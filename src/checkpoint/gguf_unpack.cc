#include "checkpoint/gguf_unpack.h"

#include <map>

#include "checkpoint/gguf_source.h"
#include "checkpoint/gguf_text.h"
#include "checkpoint/tensor_entry.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/safetensors_writer.h"

namespace nibble::checkpoint {
namespace {

constexpr uint64_t kShardBytes = 5'000'000'000;

/// tokenizer.json, with its two tables written line by line: as JSON objects they would be looked up linearly.
std::string tokenizer_text(const text::TokenizerJson& tokenizer) {
  std::string out = "{\n";
  for (const auto& [key, value] : tokenizer.settings.items()) {
    if (key == "model") continue;
    out += fmt::format("  {}: {},\n", compact_json(Json(key)), compact_json(value));
  }
  out += "  \"model\": {\n";
  for (const auto& [key, value] : tokenizer.settings["model"].items()) {
    if (key == "vocab" || key == "merges") continue;
    out += fmt::format("    {}: {},\n", compact_json(Json(key)), compact_json(value));
  }
  out += "    \"vocab\": {";
  for (size_t i = 0; i < tokenizer.vocab.size(); ++i) {
    out += fmt::format("{}\n      {}: {}", i > 0 ? "," : "", compact_json(Json(tokenizer.vocab[i].letters)),
                       tokenizer.vocab[i].id);
  }
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < tokenizer.merges.size(); ++i) {
    const auto& [left, right] = tokenizer.merges[i];
    out += fmt::format("{}\n      [{}, {}]", i > 0 ? "," : "", compact_json(Json(left)), compact_json(Json(right)));
  }
  return out + "\n    ]\n  }\n}\n";
}

/// A small file that the metadata carry, as JSON; absent where there is none or it is no JSON object.
Result<std::optional<Json>> kept_file(const Gguf& file, const std::string& name) {
  NIBBLE_TRY(text, file.string("nibble.files." + name));
  if (!text) return std::optional<Json>();
  Result<Json> json = parse_json(*text, name);
  if (!json.ok() || !json->is_object()) return std::optional<Json>();
  return std::optional<Json>(std::move(*json));
}

class Unpacker {
 public:
  Unpacker(const Gguf& file, const GgufConfig& config, GgufSource& source, const Path& folder)
      : file_(file), config_(config), source_(source), folder_(folder) {}

  Result<GgufUnpack> run() {
    NIBBLE_RETURN_IF_ERROR(declare());
    NIBBLE_TRY(writer, ShardedSafetensorsWriter::create(folder_, declared_, {{"format", "pt"}}, kShardBytes));
    for (const GgufSlot& slot : source_.slots()) NIBBLE_RETURN_IF_ERROR(write(slot, writer));
    NIBBLE_RETURN_IF_ERROR(source_.finish());
    NIBBLE_RETURN_IF_ERROR(writer.commit());
    NIBBLE_RETURN_IF_ERROR(write_config());
    NIBBLE_RETURN_IF_ERROR(write_text());
    return out_;
  }

 private:
  struct Vector {
    DType dtype;
    std::string bytes;
  };

  Status declare() {
    for (const GgufSlot& slot : source_.slots()) {
      NIBBLE_TRY(dtype, slot.is_matrix() ? matrix_dtype(slot) : vector_dtype(slot));
      declared_.emplace_back(slot.hf.name, dtype, slot.hf.shape);
      ++out_.tensors;
      out_.bytes += declared_.back().bytes;
    }
    return {};
  }

  Result<DType> matrix_dtype(const GgufSlot& slot) {
    NIBBLE_TRY(tensor, source_.require(slot));
    switch (tensor->type) {
      case GgmlType::f32:
        return DType::f32;
      case GgmlType::f16:
        return DType::f16;
      case GgmlType::nvfp4:
        return unsupported("{}: expected BF16, F16, F32 or a K-quant, got {} ({})", slot.name, tensor->text(),
                           file_.file_name())
            .with_hint("NVFP4 does not become BF16 without loss: use the folder that the file was made from");
      case GgmlType::bf16:
        return DType::bf16;
      default:
        ++out_.decoded;
        return DType::bf16;
    }
  }

  Result<DType> vector_dtype(const GgufSlot& slot) {
    NIBBLE_TRY(read, source_.vector(slot));
    Vector& vector = vectors_[slot.hf.name];
    if (read.original.empty()) {
      vector = {slot.hf.dtype, bytes_as(slot.hf.dtype, read.values)};
    } else {
      ++out_.kept;
      vector = {read.original.dtype(),
                std::string(static_cast<const char*>(read.original.raw()), read.original.bytes())};
    }
    return vector.dtype;
  }

  Status write(const GgufSlot& slot, ShardedSafetensorsWriter& writer) {
    if (!slot.is_matrix())
      return writer.append(slot.hf.name, std::as_bytes(std::span(vectors_.at(slot.hf.name).bytes)));
    Buffer memory;
    NIBBLE_TRY(matrix, source_.matrix(slot, [&](DType dtype, const Shape& shape) {
      memory = Buffer::for_tensor(dtype, shape);
      return memory.tensor(dtype, shape);
    }));
    NIBBLE_TRY(dtype, target_dtype(slot));
    if (dtype == matrix.dtype()) return writer.append(slot.hf.name, matrix);
    std::vector<uint16_t> row(static_cast<size_t>(matrix.dim(1)));
    for (int64_t r = 0; r < matrix.dim(0); ++r) {
      for (size_t c = 0; c < row.size(); ++c) {
        const float value = matrix.f32()[r * matrix.dim(1) + static_cast<int64_t>(c)];
        row[c] = dtype == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
      }
      NIBBLE_RETURN_IF_ERROR(writer.append(slot.hf.name, std::as_bytes(std::span(row))));
    }
    return {};
  }

  Result<DType> target_dtype(const GgufSlot& slot) {
    NIBBLE_TRY(tensor, source_.require(slot));
    return tensor->type == GgmlType::f32 ? DType::f32 : tensor->type == GgmlType::f16 ? DType::f16 : DType::bf16;
  }

  Status write_json(const char* name, const Json& json) {
    return write_file(folder_ / name, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  /// The config.json that the file was made from, while it describes what the tensors are.
  Status write_config() {
    NIBBLE_TRY(kept, kept_file(file_, "config.json"));
    if (kept && !kept->contains("quantization_config")) {
      const Result<model::Config> config = model::parse_config(*kept);
      if (config.ok() && same_model(*config, config_.config) &&
          config->tie_embeddings.value_or(config_.tied) == config_.tied) {
        return write_json("config.json", *kept);
      }
    }
    return write_json("config.json", model::config_json(config_.config));
  }

  Status write_text() {
    NIBBLE_TRY(tokenizer, gguf_tokenizer_json(file_));
    NIBBLE_RETURN_IF_ERROR(write_file(folder_ / "tokenizer.json", tokenizer_text(tokenizer)));
    NIBBLE_TRY(config, gguf_tokenizer_config(file_));
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    NIBBLE_TRY(kept, kept_file(file_, "tokenizer_config.json"));
    const bool fits = kept && text::Tokenizer::assemble(tokenizer, *kept).ok();
    NIBBLE_RETURN_IF_ERROR(write_json("tokenizer_config.json", fits ? *kept : config));
    NIBBLE_TRY(generation, kept_file(file_, "generation_config.json"));
    const Json stops = {{"eos_token_id", config_.config.eos_ids}};
    NIBBLE_RETURN_IF_ERROR(write_json("generation_config.json", generation ? *generation : stops));
    NIBBLE_TRY(chat_template, file_.string("tokenizer.chat_template"));
    return chat_template ? write_file(folder_ / "chat_template.jinja", *chat_template) : Status();
  }

  const Gguf& file_;
  const GgufConfig& config_;
  GgufSource& source_;
  const Path& folder_;
  std::map<std::string, Vector> vectors_;
  std::vector<TensorDeclaration> declared_;
  GgufUnpack out_;
};

}  // namespace

Result<GgufUnpack> unpack_gguf(const Path& path, const Path& folder, const LoadOptions& options) {
  NIBBLE_TRY(file, Gguf::open(path));
  NIBBLE_TRY(config, read_config(file));
  NIBBLE_TRY(originals, Originals::read(file));
  NIBBLE_TRY(prefix, gguf_prefix(file));
  NIBBLE_TRY(generation, gguf_generation(file));
  config.config.eos_ids = generation.stop_ids;
  GgufSource source(file, config, gguf_slots(config.config, prefix, config.tied, config.mtp_layers),
                    std::move(originals), options);
  return Unpacker(file, config, source, folder).run();
}

}  // namespace nibble::checkpoint
