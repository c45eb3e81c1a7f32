#include "model/batch_forward.h"
#include "ops/linear/linears.h"
#include "tensor/numeric.h"

namespace nibble::model {
namespace {

/// Copies every tensor of a model to the GPU of a context, and remembers the first failure.
class Uploader : public WeightsVisitor {
 public:
  Uploader(Context& cx, Weights& to) : cx_(cx), to_(to) {}

  void linear(const std::string& name, ops::Linear& linear, int64_t, int64_t) override {
    if (!status_.ok()) return;
    auto moved = ops::linear_to_device(cx_, linear, to_.buffers);
    if (moved.ok()) {
      linear = *moved;
    } else {
      status_ = Status(moved.status().code(), fmt::format("{}: {}", name, moved.status().message()))
                    .with_hint(moved.status().hint());
    }
  }

  void tensor(const std::string&, Tensor& tensor, const Shape&, TensorKind kind) override {
    if (!status_.ok()) return;
    std::vector<uint16_t> rounded;
    Tensor host = tensor;
    if (kind == TensorKind::embedding && tensor.dtype() == DType::f32) {
      for (const float x : tensor.f32_span()) rounded.push_back(f32_to_bf16(x));
      host = Tensor(rounded.data(), DType::bf16, tensor.shape());
    }
    auto buffer = Buffer::on(cx_.device, host.bytes());
    if (!buffer.ok()) {
      status_ = buffer.status();
      return;
    }
    tensor = to_.own(std::move(*buffer)).tensor(host.dtype(), host.shape());
    cx_.stream->copy(host, tensor);
    if (!rounded.empty()) status_ = cx_.stream->wait();
  }

  const Status& status() const { return status_; }

 private:
  Context& cx_;
  Weights& to_;
  Status status_;
};

Status check_mlp(const Weights& weights) {
  for (size_t i = 0; i < weights.blocks.size(); ++i) {
    const auto& mlp = weights.blocks[i].mlp;
    if (ops::alike_for_swiglu(mlp.gate_proj, mlp.up_proj)) continue;
    return unsupported("--device cuda: layer {}: gate_proj and up_proj differ in format or in how inputs are rounded",
                       i)
        .with_hint("use --device cpu, or --act a16 where only the inputs differ");
  }
  return {};
}

}  // namespace

Result<Weights> to_device(Context& cx, const Weights& host) {
  NIBBLE_RETURN_IF_ERROR(check_mlp(host));
  Weights out = blank_weights(host.config, host.prefix, host.tied);
  out.embed = host.embed;
  out.blocks = host.blocks;
  out.final_norm = host.final_norm;
  out.lm_head = host.lm_head;
  Uploader uploader(cx, out);
  visit_weights(out, uploader);
  NIBBLE_RETURN_IF_ERROR(uploader.status());
  if (out.tied) out.lm_head = dense_linear(out.embed);
  NIBBLE_RETURN_IF_ERROR(cx.stream->wait());
  return out;
}

}  // namespace nibble::model
