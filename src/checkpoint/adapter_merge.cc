#include <atomic>
#include <cmath>
#include <cstring>

#include "checkpoint/adapter.h"
#include "checkpoint/fingerprint.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr int64_t kChunkElements = 4 << 20;  // of B A at a time

struct F32 {
  using Word = float;
  static float wide(Word x) { return x; }
  static Word narrow(float x) { return x; }
};
struct Bf16 {
  using Word = uint16_t;
  static float wide(Word x) { return bf16_to_f32(x); }
  static Word narrow(float x) { return f32_to_bf16(x); }
};
struct F16 {
  using Word = uint16_t;
  static float wide(Word x) { return f16_to_f32(x); }
  static Word narrow(float x) { return f32_to_f16(x); }
};

template <class Body>
void with_codec(DType type, const Body& body) {
  switch (type) {
    case DType::bf16:
      return body(Bf16());
    case DType::f16:
      return body(F16());
    default:
      NIBBLE_CHECK(type == DType::f32);
      return body(F32());
  }
}

// Files promise no alignment, so elements are read by memcpy.
template <class Codec>
float value_at(const void* base, int64_t i) {
  typename Codec::Word word;
  std::memcpy(&word, static_cast<const std::byte*>(base) + static_cast<size_t>(i) * sizeof word, sizeof word);
  return Codec::wide(word);
}

enum class Order : uint8_t { as_is, transposed };

/// A matrix in f32; `corrupt` when a value is no number.
Result<OwnedTensor> widen(const Safetensors& file, const TensorInfo& info, Order order) {
  NIBBLE_TRY(source, file.tensor(info));
  const int64_t rows = source.dim(0), columns = source.dim(1);
  OwnedTensor out(DType::f32, order == Order::as_is ? Shape{rows, columns} : Shape{columns, rows});
  bool finite = true;
  with_codec(source.dtype(), [&](auto codec) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const float x = value_at<decltype(codec)>(source.raw(), i * columns + j);
        finite &= std::isfinite(x);
        out.view.f32()[order == Order::as_is ? i * columns + j : j * rows + i] = x;
      }
    }
  });
  if (!finite) {
    return corrupt("weight not finite: {}: expected numbers, got NaN or infinity ({})", info.name, kAdapterWeightsFile)
        .with_hint("training diverged or the file was damaged: take an earlier adapter");
  }
  return out;
}

}  // namespace

Result<OwnedTensor> Adapter::merged(ThreadPool& pool, std::string_view tensor_name, const Tensor& base) const {
  const std::string_view module = model::module_name(tensor_name);
  const AdaptedModule* adapted = module.size() == tensor_name.size() ? nullptr : find(module);
  if (adapted == nullptr) return OwnedTensor();
  NIBBLE_RETURN_IF_ERROR(check_shape(module, *adapted, base));
  NIBBLE_TRY(b, widen(file_, *adapted->b, Order::as_is));
  NIBBLE_TRY(a, widen(file_, *adapted->a, Order::transposed));

  Context cx(pool);  // exact, whatever the model will compute in: B is a weight
  OwnedTensor out(base.dtype(), base.shape());
  std::atomic<bool> finite{true};
  const int64_t rows = adapted->out(), columns = adapted->in();
  const int64_t chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, columns));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Arena::Scope scope(cx.arena);
    Tensor product = cx.arena.f32({end - begin, columns});
    ops::linear(cx, b.view.rows(begin, end), model::dense_linear(a.view), product);
    with_codec(base.dtype(), [&](auto codec) {
      using Codec = decltype(codec);
      auto* to = static_cast<typename Codec::Word*>(out.view.raw());
      pool.parallel_for(product.elements(), 1 << 18, [&](int64_t from, int64_t until) {
        bool numbers = true;
        for (int64_t i = from; i < until; ++i) {
          const int64_t at = begin * columns + i;
          to[at] = Codec::narrow(value_at<Codec>(base.raw(), at) + adapted->scale * product.f32()[i]);
          numbers &= std::isfinite(Codec::wide(to[at]));
        }
        if (!numbers) finite = false;
      });
    });
  }
  if (!finite) {
    return corrupt("weight not finite: {}: expected numbers after the merge, got NaN or infinity ({})", tensor_name,
                   kAdapterWeightsFile)
        .with_hint("the base or the adapter is broken");
  }
  return out;
}

Status merge_adapter(ThreadPool& pool, LoadedModel& model, const Adapter& adapter) {
  NIBBLE_RETURN_IF_ERROR(adapter.check_base(model.weights));
  Status status;
  model.weights.for_each_linear([&](std::string_view module, ops::Linear& linear) {
    if (!status.ok()) return;
    Result<OwnedTensor> merged = adapter.merged(pool, std::string(module) + ".weight", linear.weight);
    if (!merged.ok()) {
      status = merged.status();
    } else if (!merged->view.empty()) {
      linear.weight = merged->view;
      model.weights.own(std::move(merged->buffer));
    }
  });
  NIBBLE_RETURN_IF_ERROR(status);
  const std::string_view parts[] = {model.fingerprint, adapter.fingerprint()};
  model.fingerprint = fingerprint(parts);
  model.adapter = adapter.name();
  return {};
}

Result<MergedTensors> merged_tensors(ThreadPool& pool, std::shared_ptr<const Adapter> adapter, const Path& base) {
  LoadOptions shapes_only;
  shapes_only.check_values = false;
  shapes_only.widen_f16 = false;
  NIBBLE_TRY(model, load_checkpoint(base, shapes_only));
  NIBBLE_RETURN_IF_ERROR(adapter->check_base(model.weights));
  NIBBLE_TRY(opened, SafetensorsFolder::open(base));
  auto files = std::make_shared<const SafetensorsFolder>(std::move(opened));
  for (const auto& [module, adapted] : adapter->modules()) {
    const std::string name = module + ".weight";
    const bool other = model::part_of(name) == model::Part::visual || model::part_of(name) == model::Part::mtp;
    if (other && files->find(name) == nullptr) {
      return invalid_argument("adapter: {}: expected a tensor of the base, got none of that name ({})", name,
                              base.string())
          .with_hint("take the folder with the vision tower that the adapter was trained on");
    }
  }
  auto current = std::make_shared<OwnedTensor>();
  return MergedTensors([=, &pool](const TensorInfo& info) -> Result<Tensor> {
    const SafetensorsFolder::Entry* entry = files->find(info.name);
    if (entry == nullptr || adapter->find(model::module_name(info.name)) == nullptr) return Tensor();
    NIBBLE_TRY(source, entry->file->tensor(*entry->info));
    NIBBLE_TRY(merged, adapter->merged(pool, info.name, source));
    entry->file->drop(*entry->info);
    *current = std::move(merged);
    return current->view;
  });
}

}  // namespace nibble::checkpoint
