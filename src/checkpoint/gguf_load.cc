#include "checkpoint/gguf_load.h"

#include <algorithm>

#include "checkpoint/activations.h"
#include "checkpoint/fingerprint.h"
#include "checkpoint/gguf_source.h"
#include "checkpoint/gguf_text.h"

namespace nibble::checkpoint {
namespace {

/// Fills the slots that visit_weights shows it. The first error sticks.
class Loader : public model::WeightsVisitor {
 public:
  Loader(GgufSource& source, const Gguf& file, model::Weights& weights)
      : source_(source), file_(file), weights_(weights) {}

  void linear(const std::string& name, ops::Linear& linear, int64_t, int64_t) override {
    if (!status_.ok()) return;
    const GgufSlot& slot = source_.slot(name + ".weight");
    const GgufTensor* tensor = file_.find(slot.name);
    const bool nvfp4 = tensor != nullptr && tensor->type == GgmlType::nvfp4;
    status_ = nvfp4 ? source_.nvfp4(slot, own(), linear) : dense(slot, linear);
  }
  void tensor(const std::string& name, Tensor& tensor, const Shape& shape, model::TensorKind kind) override {
    if (!status_.ok()) return;
    status_ = kind == model::TensorKind::embedding ? embedding(source_.slot(name), tensor)
                                                   : vector(source_.slot(name), tensor, shape);
  }
  const Status& status() const { return status_; }

 private:
  std::function<Tensor(DType, const Shape&)> own() {
    return [this](DType dtype, const Shape& shape) {
      return weights_.own(Buffer::for_tensor(dtype, shape)).tensor(dtype, shape);
    };
  }
  Status dense(const GgufSlot& slot, ops::Linear& linear) {
    NIBBLE_TRY(matrix, source_.matrix(slot, own()));
    linear = model::dense_linear(matrix);
    return {};
  }
  Status embedding(const GgufSlot& slot, Tensor& tensor) {
    NIBBLE_TRY(matrix, source_.matrix(slot, own()));
    tensor = matrix;
    return {};
  }
  Status vector(const GgufSlot& slot, Tensor& tensor, const Shape& shape) {
    NIBBLE_TRY(read, source_.vector(slot));
    const bool conv = slot.hf.kind == model::TensorKind::conv;
    tensor = own()(DType::f32, conv ? Shape{shape[0], shape[2]} : shape);
    std::copy(read.values.begin(), read.values.end(), tensor.f32());
    return {};
  }

  GgufSource& source_;
  const Gguf& file_;
  model::Weights& weights_;
  Status status_;
};

/// The format that most bytes of linears have in the file, in small letters; nibble's own word where it computes in it.
std::string main_format(const Gguf& file, std::span<const GgufSlot> slots) {
  std::map<std::string_view, uint64_t> bytes;
  for (const GgufSlot& slot : slots) {
    const GgufTensor* tensor = file.find(slot.name);
    if (slot.hf.kind == model::TensorKind::linear && tensor != nullptr) {
      bytes[ggml_format(tensor->type).name] += tensor->bytes;
    }
  }
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  std::string out(most == bytes.end() ? "" : most->first);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

FormatSummary summarize_gguf(const model::Weights& weights, const Gguf& file, const GgufSource& source,
                             const GgufConfig& config) {
  FormatSummary out = summarize(weights);
  if (out.format == "f32") out.format = main_format(file, source.slots());
  for (const GgufTensor& tensor : file.tensors()) {
    out.dtype_bytes[std::string(ggml_format(tensor.type).name)] += tensor.bytes;
    out.file_bytes += tensor.bytes;
  }
  out.has_mtp = config.mtp_layers > 0;
  return out;
}

}  // namespace

Result<LoadedModel> load_gguf(const Path& path, const LoadOptions& options) {
  NIBBLE_TRY(file, Gguf::open(path));
  NIBBLE_TRY(config, read_config(file));
  NIBBLE_TRY(originals, Originals::read(file));
  NIBBLE_TRY(prefix, gguf_prefix(file));
  LoadedModel out;
  NIBBLE_TRY(generation, gguf_generation(file));
  out.generation = std::move(generation);
  config.config.eos_ids = out.generation.stop_ids;
  out.weights = model::blank_weights(config.config, prefix, config.tied);
  GgufSource source(file, config, gguf_slots(config.config, prefix, config.tied, 0), std::move(originals), options);
  Loader loader(source, file, out.weights);
  model::visit_weights(out.weights, loader);
  NIBBLE_RETURN_IF_ERROR(loader.status());
  NIBBLE_RETURN_IF_ERROR(source.finish());
  if (config.tied) out.weights.lm_head = model::dense_linear(out.weights.embed);
  out.weights.mappings.push_back(file.mapping());
  out.format = summarize_gguf(out.weights, file, source, config);
  out.fingerprint = fingerprint(std::vector<std::string_view>{file.header()});
  return out;
}

}  // namespace nibble::checkpoint
