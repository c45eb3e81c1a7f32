#include "checkpoint/gguf_export.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_originals.h"
#include "checkpoint/gguf_text.h"
#include "checkpoint/tensor_entry.h"

namespace nibble::checkpoint {
namespace {

constexpr int64_t kNvfp4Row = 64, kQ8Row = 32;
constexpr uint64_t kPieceBytes = 4 << 20;
/// Small files of the folder that the metadata carry along, for the way back.
constexpr const char* kKeptFiles[] = {"config.json", "generation_config.json", "tokenizer_config.json"};
constexpr size_t kMaxKeptBytes = 1 << 20;

/// llama.cpp's number for a file that is mostly of one type (enum llama_ftype).
uint32_t file_type(GgufMatrices matrices) {
  return matrices == GgufMatrices::bf16 ? 32 : matrices == GgufMatrices::q8_0 ? 7 : 39;
}

/// Row r of a linear as f32.
void linear_row(const ops::Linear& linear, int64_t r, std::span<float> out) {
  const int64_t columns = linear.in;
  const auto at = [&](int64_t c) { return static_cast<size_t>(c); };
  switch (linear.format) {
    case ops::WeightFormat::f32:
    case ops::WeightFormat::bf16:
      for (int64_t c = 0; c < columns; ++c) out[at(c)] = float_at(linear.weight, r * columns + c);
      return;
    case ops::WeightFormat::fp8: {
      const float scale = linear.channel_scale.empty() ? linear.tensor_scale : linear.channel_scale.f32()[r];
      for (int64_t c = 0; c < columns; ++c) out[at(c)] = e4m3_to_f32(linear.weight.u8()[r * columns + c]) * scale;
      return;
    }
    case ops::WeightFormat::nvfp4:
      for (int64_t c = 0; c < columns; ++c) {
        const uint8_t codes = linear.weight.u8()[(r * columns + c) / 2];
        const float scale = e4m3_to_f32(linear.block_scale.u8()[(r * columns + c) / kNvfp4Block]);
        out[at(c)] = e2m1_to_f32(codes >> (c % 2 * 4) & 15) * (scale * linear.tensor_scale);
      }
      return;
  }
}

/// A matrix of the model and what it becomes.
struct Matrix {
  ops::Linear linear;
  GgmlType type = GgmlType::bf16;
};

class Exporter {
 public:
  Exporter(const Path& folder, const GgufExportOptions& options) : folder_(folder), options_(options) {}

  Result<GgufExport> run(const Path& out) {
    NIBBLE_RETURN_IF_ERROR(open());
    NIBBLE_RETURN_IF_ERROR(choose());
    NIBBLE_RETURN_IF_ERROR(read_vectors());
    GgufMetadata metadata;
    NIBBLE_RETURN_IF_ERROR(describe(metadata));
    NIBBLE_TRY(writer, GgufWriter::create(out, metadata, declare()));
    for (const GgufSlot& slot : slots_) NIBBLE_RETURN_IF_ERROR(write(slot, writer));
    NIBBLE_RETURN_IF_ERROR(writer.commit());
    return std::move(result_);
  }

 private:
  const model::Config& config() const { return model_.weights.config; }

  Status open() {
    LoadOptions load;
    load.pool = options_.pool;
    load.cancel = options_.cancel;
    load.check_values = false;  // they are read once, where they are written
    NIBBLE_TRY(model, load_checkpoint(folder_, load));
    model_ = std::move(model);
    NIBBLE_TRY(files, SafetensorsFolder::open(folder_));
    files_.emplace(std::move(files));
    const int64_t mtp =
        files_->find("mtp.fc.weight") != nullptr ? std::max<int64_t>(1, config().mtp_layers.value_or(1)) : 0;
    if (mtp > 1) return unsupported("gguf: expected at most one draft layer, got {}", mtp);
    mtp_layers_ = mtp;
    slots_ = gguf_slots(config(), model_.weights.prefix, model_.weights.tied, mtp);
    if (model_.format.has_vision)
      note("the vision tower (model.visual.*) is not in the file: llama.cpp reads it from one of its own");
    return {};
  }

  void note(std::string text) {
    if (std::find(result_.notes.begin(), result_.notes.end(), text) == result_.notes.end()) {
      result_.notes.push_back(std::move(text));
    }
  }

  /// The matrix of a draft tensor, which loading leaves alone.
  Result<Tensor> draft_matrix(const GgufSlot& slot) {
    NIBBLE_TRY(entry, require(slot));
    NIBBLE_TRY(view, entry.file->tensor(*entry.info));
    return view;
  }
  Result<SafetensorsFolder::Entry> require(const GgufSlot& slot) {
    const auto* entry = files_->find(slot.hf.name);
    if (entry == nullptr || !is_float(entry->info->type) || !has_shape(*entry->info, slot.hf.shape)) {
      return corrupt("{}: expected {} {}, got {}", slot.hf.name, slot.hf.shape.text(), kFloats,
                     entry == nullptr ? "no such tensor" : nibble::checkpoint::describe(*entry->info))
          .with_hint("the checkpoint is incomplete, or its config.json belongs to another model");
    }
    return *entry;
  }

  Status choose() {
    std::map<std::string, ops::Linear> linears;
    model_.weights.for_each_linear([&](std::string_view name, const ops::Linear& linear) {
      linears.emplace(std::string(name) + ".weight", linear);
    });
    const bool has_nvfp4 = model_.format.linears.contains("nvfp4");
    result_.matrices = options_.matrices.value_or(has_nvfp4 ? GgufMatrices::nvfp4 : GgufMatrices::bf16);
    if (result_.matrices == GgufMatrices::nvfp4 && !has_nvfp4) {
      return invalid_argument("--gguf-type nvfp4: expected a checkpoint with NVFP4 modules, got {} ({})",
                              model_.format.format, folder_.string())
          .with_hint("quantize it first: nibble quantize DIR --output OUT");
    }
    for (const GgufSlot& slot : slots_) {
      if (!slot.is_matrix()) continue;
      Matrix& matrix = matrices_[slot.name];
      if (slot.hf.kind == model::TensorKind::embedding) {
        matrix.linear = model::dense_linear(model_.weights.embed);
      } else if (const auto found = linears.find(slot.hf.name); found != linears.end()) {
        matrix.linear = found->second;
      } else {
        NIBBLE_TRY(view, draft_matrix(slot));
        if (view.dtype() == DType::f16) {
          return unsupported("{}: expected bf16 or f32 in a draft head, got f16", slot.hf.name);
        }
        matrix.linear = model::dense_linear(view);
      }
      if (!matrix.linear.low_rank_a.empty()) {
        return unsupported("{}: expected no low-rank branch, got one: GGUF has no place for it", slot.hf.name);
      }
      matrix.type = type_of(slot, matrix.linear);
    }
    return {};
  }

  GgmlType type_of(const GgufSlot& slot, const ops::Linear& linear) {
    const bool nvfp4 = linear.format == ops::WeightFormat::nvfp4;
    if (result_.matrices == GgufMatrices::nvfp4 && nvfp4) {
      const bool whole_groups = slot.order != HeadOrder::columns || slot.head % kNvfp4Block == 0;
      if (linear.in % kNvfp4Row == 0 && whole_groups) return GgmlType::nvfp4;
      note(fmt::format("NVFP4 modules whose rows or heads llama.cpp's blocks of {} do not fit are decoded to BF16",
                       kNvfp4Row));
    }
    if (result_.matrices == GgufMatrices::q8_0 && linear.in % kQ8Row == 0) return GgmlType::q8_0;
    if (result_.matrices == GgufMatrices::q8_0) {
      note(fmt::format("matrices whose rows are no multiple of {} are BF16 instead of Q8_0", kQ8Row));
    } else if (linear.format != ops::WeightFormat::bf16) {
      note("matrices that are not BF16 in the checkpoint are rounded to it");
    }
    return GgmlType::bf16;
  }

  /// Vectors are small, and the metadata come before all tensors.
  Status read_vectors() {
    for (const GgufSlot& slot : slots_) {
      if (slot.is_matrix()) continue;
      NIBBLE_TRY(entry, require(slot));
      NIBBLE_TRY(original, entry.file->tensor(*entry.info));
      std::vector<float>& values = vectors_[slot.name];
      values = gguf_values(config(), slot, original);
      if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
        return broken(slot);
      originals_.offer(config(), slot, original, values);
    }
    return {};
  }

  static Status broken(const GgufSlot& slot) {
    return corrupt("weight not finite: {}: expected numbers, got NaN or infinity", slot.hf.name)
        .with_hint("the model is broken: nothing computed with this weight would be a number");
  }

  Status describe(GgufMetadata& metadata) {
    metadata.add("general.architecture", kGgufArchitecture);
    metadata.add("general.type", "model");
    if (!options_.name.empty()) metadata.add("general.name", options_.name);
    metadata.add("general.file_type", file_type(result_.matrices));
    metadata.add("general.quantization_version", uint32_t{2});  // of ggml's block formats
    NIBBLE_RETURN_IF_ERROR(add_config(config(), model_.weights.prefix, mtp_layers_, metadata));
    NIBBLE_TRY(nfc, add_text(folder_, config(), model_.generation, metadata));
    if (nfc)
      note("llama.cpp does not compose text to NFC as the model's tokenizer does: decomposed text gets other ids");
    for (const char* name : kKeptFiles) {
      const auto text = read_file(folder_ / name, kMaxKeptBytes);
      if (text.ok()) metadata.add(std::string("nibble.files.") + name, *text);
    }
    originals_.finish(metadata);
    return {};
  }

  std::vector<GgufDeclaration> declare() {
    std::vector<GgufDeclaration> out;
    std::map<GgmlType, int> counts;
    const auto add = [&](std::string name, GgmlType type, std::vector<int64_t> shape) {
      out.push_back({std::move(name), type, std::move(shape)});
      result_.bytes += out.back().bytes();
      ++counts[type];
    };
    for (const GgufSlot& slot : slots_) {
      if (!slot.is_matrix()) {
        add(slot.name, GgmlType::f32, slot.shape);
        continue;
      }
      const Matrix& matrix = matrices_.at(slot.name);
      add(slot.name, matrix.type, slot.shape);
      for (const auto& [name, value] : factors(slot, matrix)) add(name, GgmlType::f32, {1});
    }
    for (const auto& [type, count] : counts) result_.types.emplace_back(ggml_format(type).name, count);
    return out;
  }

  /// The numbers beside an NVFP4 matrix.
  static std::vector<std::pair<std::string, float>> factors(const GgufSlot& slot, const Matrix& matrix) {
    if (matrix.type != GgmlType::nvfp4) return {};
    const std::string module(model::module_name(slot.name));
    std::vector<std::pair<std::string, float>> out = {{module + ".scale", matrix.linear.tensor_scale}};
    if (matrix.linear.inputs == ops::InputRounding::nvfp4)
      out.emplace_back(module + ".input_scale", matrix.linear.input_scale);
    return out;
  }

  Status write(const GgufSlot& slot, GgufWriter& writer) {
    if (!slot.is_matrix()) return append(writer, slot.name, std::as_bytes(std::span(vectors_.at(slot.name))));
    const Matrix& matrix = matrices_.at(slot.name);
    NIBBLE_RETURN_IF_ERROR(write_matrix(slot, matrix, writer));
    for (const auto& [name, value] : factors(slot, matrix)) {
      NIBBLE_RETURN_IF_ERROR(append(writer, name, std::as_bytes(std::span(&value, 1))));
    }
    return {};
  }

  Status append(GgufWriter& writer, const std::string& name, std::span<const std::byte> bytes) {
    if (options_.cancel.cancelled()) return cancelled("gguf: stopped at {}", name);
    NIBBLE_RETURN_IF_ERROR(writer.append(name, bytes));
    done_ += bytes.size();
    report(options_.progress, done_, result_.bytes, name);
    return {};
  }

  Status write_matrix(const GgufSlot& slot, const Matrix& matrix, GgufWriter& writer) {
    const GgmlFormat& format = ggml_format(matrix.type);
    const int64_t rows = slot.shape[0], columns = slot.shape[1];
    const auto row_bytes = static_cast<size_t>(columns / format.weights * format.bytes);
    const auto piece_rows = static_cast<int64_t>(std::max<uint64_t>(1, kPieceBytes / row_bytes));
    std::vector<std::byte> piece;
    for (int64_t begin = 0; begin < rows; begin += piece_rows) {
      const int64_t end = std::min(rows, begin + piece_rows);
      piece.resize(static_cast<size_t>(end - begin) * row_bytes);
      const auto encode = [&](int64_t first, int64_t last) {
        std::vector<float> row(static_cast<size_t>(columns)), moved(static_cast<size_t>(columns));
        for (int64_t r = first; r < last; ++r) {
          const std::span to(piece.data() + static_cast<size_t>(r) * row_bytes, row_bytes);
          encode_row(slot, matrix, begin + r, to, row, moved);
        }
      };
      if (options_.pool != nullptr) {
        options_.pool->parallel_for(end - begin, 16, encode);
      } else {
        encode(0, end - begin);
      }
      if (bad_.load()) {
        return broken(slot);
      }
      NIBBLE_RETURN_IF_ERROR(append(writer, slot.name, piece));
    }
    return {};
  }

  /// Row r of the file.
  void encode_row(const GgufSlot& slot, const Matrix& matrix, int64_t r, std::span<std::byte> to,
                  std::vector<float>& row, std::vector<float>& moved) {
    const bool columns_move = slot.order == HeadOrder::columns;
    const int64_t from = columns_move ? r : checkpoint_index(config(), slot, r);
    if (matrix.type == GgmlType::nvfp4) return encode_nvfp4(slot, matrix.linear, from, to);
    linear_row(matrix.linear, from, row);
    std::vector<float>* values = &row;
    if (columns_move) {
      for (size_t c = 0; c < row.size(); ++c) {
        moved[c] = row[static_cast<size_t>(checkpoint_index(config(), slot, static_cast<int64_t>(c)))];
      }
      values = &moved;
    }
    for (const float value : *values) {
      if (!std::isfinite(value)) bad_ = true;
    }
    if (matrix.type == GgmlType::q8_0) return encode_q8_0(*values, to);
    for (size_t c = 0; c < values->size(); ++c) {
      const uint16_t bits = f32_to_bf16((*values)[c]);
      std::memcpy(to.data() + 2 * c, &bits, 2);
    }
  }

  void encode_nvfp4(const GgufSlot& slot, const ops::Linear& linear, int64_t r, std::span<std::byte> to) {
    constexpr int64_t kCodeBytes = kNvfp4Block / 2;
    const int64_t groups = linear.in / kNvfp4Block;
    const uint8_t* codes = linear.weight.u8() + r * groups * kCodeBytes;
    const uint8_t* scales = linear.block_scale.u8() + r * groups;
    std::vector<uint8_t> row_codes(static_cast<size_t>(groups * kCodeBytes)), row_scales(static_cast<size_t>(groups));
    for (int64_t g = 0; g < groups; ++g) {
      const bool moves = slot.order == HeadOrder::columns;
      const int64_t from = moves ? checkpoint_index(config(), slot, g * kNvfp4Block) / kNvfp4Block : g;
      if (scales[from] > kE4m3MaxByte) bad_ = true;
      row_scales[static_cast<size_t>(g)] = scales[from];
      std::memcpy(row_codes.data() + g * kCodeBytes, codes + from * kCodeBytes, kCodeBytes);
    }
    pack_nvfp4(row_codes, row_scales, to);
  }

  const Path& folder_;
  const GgufExportOptions& options_;
  LoadedModel model_;
  std::optional<SafetensorsFolder> files_;
  int64_t mtp_layers_ = 0;
  std::vector<GgufSlot> slots_;
  std::map<std::string, Matrix> matrices_;             // by name in the file
  std::map<std::string, std::vector<float>> vectors_;  // likewise
  OriginalsWriter originals_;
  GgufExport result_;
  uint64_t done_ = 0;
  std::atomic<bool> bad_{false};
};

}  // namespace

std::optional<GgufMatrices> gguf_matrices_named(std::string_view name) {
  if (name == "bf16") return GgufMatrices::bf16;
  if (name == "q8_0") return GgufMatrices::q8_0;
  if (name == "nvfp4") return GgufMatrices::nvfp4;
  return std::nullopt;
}

Result<GgufExport> export_gguf(const Path& folder, const Path& file, const GgufExportOptions& options) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    return invalid_argument("gguf: expected a file to write, got a folder ({})", file.string());
  }
  return Exporter(folder, options).run(file);
}

}  // namespace nibble::checkpoint
