#include "model/batch_forward.h"
#include "ops/linear/linears.h"
#include "tensor/device.h"
#include "tensor/numeric.h"

namespace nibble::model {
namespace {

/// The same tensors in the same places, as views.
Weights views_of(const Weights& host) {
  Weights out = blank_weights(host.config, host.prefix, host.tied);
  out.embed = host.embed;
  out.blocks = host.blocks;
  out.final_norm = host.final_norm;
  out.lm_head = host.lm_head;
  return out;
}

// A GPU holds the embedding in BF16.
bool becomes_bf16(const Tensor& tensor, TensorKind kind) {
  return kind == TensorKind::embedding && tensor.dtype() == DType::f32;
}

/// Copies every tensor of a model to the GPU of a context, and remembers the first failure.
class Uploader : public WeightsVisitor {
 public:
  Uploader(Context& cx, Upload& upload, bool drop, const Weights& from, Weights& to)
      : cx_(cx), upload_(upload), drop_(drop), from_(from), to_(to) {}

  void linear(const std::string& name, ops::Linear& linear, int64_t, int64_t) override {
    if (!status_.ok()) return;
    auto moved = ops::linear_to_device(cx_, linear, to_.buffers, &upload_);
    if (!moved.ok()) {
      status_ = Status(moved.status().code(), fmt::format("{}: {}", name, moved.status().message()))
                    .with_hint(moved.status().hint());
      return;
    }
    for (const Tensor& host : {linear.weight, linear.block_scale}) drop(host);
    linear = *moved;
  }

  void tensor(const std::string&, Tensor& tensor, const Shape&, TensorKind kind) override {
    if (!status_.ok()) return;
    std::vector<uint16_t> rounded;
    Tensor host = tensor;
    if (becomes_bf16(tensor, kind)) {
      rounded.resize(static_cast<size_t>(tensor.elements()));
      cx_.pool.parallel_for(tensor.elements(), 1 << 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) rounded[static_cast<size_t>(i)] = f32_to_bf16(tensor.f32()[i]);
      });
      host = Tensor(rounded.data(), DType::bf16, tensor.shape());
    }
    auto buffer = Buffer::on(cx_.device, host.bytes());
    if (!buffer.ok()) {
      status_ = buffer.status();
      return;
    }
    const Tensor on_device = to_.own(std::move(*buffer)).tensor(host.dtype(), host.shape());
    upload_.copy(host, on_device);
    drop(tensor);
    tensor = on_device;
  }

  const Status& status() const { return status_; }

 private:
  void drop(const Tensor& host) const {
    if (!drop_ || host.empty()) return;
    const auto* const begin = static_cast<const std::byte*>(host.raw());
    for (const MappedFile& file : from_.mappings) {
      const std::span<const std::byte> bytes = file.bytes();
      if (begin < bytes.data() || begin >= bytes.data() + bytes.size()) continue;
      file.drop(static_cast<size_t>(begin - bytes.data()), host.bytes());
    }
  }

  Context& cx_;
  Upload& upload_;
  const bool drop_;
  const Weights& from_;
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

struct DeviceBytes : WeightsVisitor {
  void linear(const std::string&, ops::Linear& linear, int64_t, int64_t) override {
    sum += ops::linear_device_bytes(linear);
  }
  void tensor(const std::string&, Tensor& tensor, const Shape&, TensorKind kind) override {
    sum += becomes_bf16(tensor, kind) ? tensor.bytes() / 2 : tensor.bytes();
  }
  uint64_t sum = 0;
};

}  // namespace

Result<Weights> to_device(Context& cx, const Weights& host) {
  NIBBLE_RETURN_IF_ERROR(check_mlp(host));
  NIBBLE_TRY(info, open_device(cx.device));
  NIBBLE_TRY(upload, Upload::open(cx));
  Weights out = views_of(host);
  Uploader uploader(cx, *upload, info.unified, host, out);
  visit_weights(out, uploader);
  NIBBLE_RETURN_IF_ERROR(uploader.status());
  if (out.tied) out.lm_head = dense_linear(out.embed);
  NIBBLE_RETURN_IF_ERROR(cx.stream->wait());
  return out;
}

uint64_t device_bytes(const Weights& host) {
  Weights views = views_of(host);
  DeviceBytes bytes;
  visit_weights(views, bytes);
  return bytes.sum;
}

}  // namespace nibble::model
