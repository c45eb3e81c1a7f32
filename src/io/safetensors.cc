#include "io/safetensors.h"

#include <utility>

#include "io/safetensors_header.h"

namespace nibble {
namespace {

constexpr std::pair<DType, std::string_view> kSpellings[] = {
    {DType::f32, "F32"}, {DType::bf16, "BF16"}, {DType::f16, "F16"}, {DType::f8e4m3, "F8_E4M3"},
    {DType::u8, "U8"},   {DType::u16, "U16"},   {DType::i32, "I32"},
};

}  // namespace

std::string_view safetensors_name(DType type) {
  for (const auto& [known, spelling] : kSpellings) {
    if (known == type) return spelling;
  }
  return {};
}

std::optional<DType> dtype_from_safetensors(std::string_view spelling) {
  for (const auto& [known, word] : kSpellings) {
    if (word == spelling) return known;
  }
  return std::nullopt;
}

std::string TensorInfo::text() const {
  return fmt::format("[{}] {}", fmt::join(shape, ","), dtype);
}

Result<Safetensors> Safetensors::open(const Path& path) {
  NIBBLE_TRY(file, MappedFile::open(path));
  NIBBLE_TRY(header, parse_safetensors_header(file.bytes(), path.filename().string()));
  Safetensors out;
  out.file_ = std::move(file);
  out.header_ = header.json;
  out.data_begin_ = header.data_begin;
  out.tensors_ = std::move(header.tensors);
  out.metadata_ = std::move(header.metadata);
  out.by_name_.reserve(out.tensors_.size());
  for (size_t i = 0; i < out.tensors_.size(); ++i) out.by_name_.emplace(out.tensors_[i].name, i);
  return out;
}

const TensorInfo* Safetensors::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> Safetensors::bytes(const TensorInfo& info) const {
  return file_.bytes().subspan(data_begin_ + info.offset, info.bytes);
}

Result<Tensor> Safetensors::tensor(const TensorInfo& info) const {
  if (!info.type || info.shape.size() > static_cast<size_t>(Shape::kMaxRank)) {
    return unsupported("{}: expected F32, BF16, F16, F8_E4M3, U8 or I32 with at most {} dimensions, got {} ({})",
                       info.name, Shape::kMaxRank, info.text(), file_.path().filename().string());
  }
  Shape shape;
  for (int64_t dim : info.shape) shape.push_back(dim);
  return Tensor::constant(bytes(info).data(), *info.type, shape);
}

void Safetensors::drop(const TensorInfo& info) const {
  file_.drop(data_begin_ + info.offset, info.bytes);
}

bool is_aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.raw()) % size_of(tensor.dtype()) == 0;
}

}  // namespace nibble
