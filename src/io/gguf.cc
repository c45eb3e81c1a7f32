#include "io/gguf.h"

#include <fstream>
#include <limits>

namespace nibble {

std::string GgufTensor::text() const {
  return fmt::format("[{}] {}", fmt::join(shape, ","), ggml_format(type).name);
}

Result<Gguf> Gguf::open(const Path& path) {
  NIBBLE_TRY(file, MappedFile::open(path));
  NIBBLE_TRY(header, parse_gguf_header(file.bytes(), path.filename().string()));
  Gguf out;
  out.file_ = std::move(file);
  out.header_ = std::move(header);
  for (size_t i = 0; i < out.header_.tensors.size(); ++i) out.by_name_.emplace(out.header_.tensors[i].name, i);
  for (size_t i = 0; i < out.header_.metadata.size(); ++i) out.by_key_.emplace(out.header_.metadata[i].first, i);
  if (const GgufValue* count = out.value("split.count")) {
    if (const auto* parts = std::get_if<uint64_t>(count); parts == nullptr || *parts > 1) {
      return unsupported("split.count: expected a file of its own, got a part of a split one ({})", out.file_name())
          .with_hint("join the parts first: llama-gguf-split --merge");
    }
  }
  return out;
}

const GgufTensor* Gguf::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> Gguf::bytes(const GgufTensor& tensor) const {
  return file_.bytes().subspan(tensor.offset, tensor.bytes);
}

const GgufValue* Gguf::value(std::string_view key) const {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : &header_.metadata[found->second].second;
}

Status Gguf::mistyped(std::string_view key, std::string_view expected) const {
  return corrupt("{}: expected {}, got a value of another type ({})", key, expected, file_name());
}

Result<std::optional<int64_t>> Gguf::integer(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return std::optional<int64_t>();
  if (const auto* number = std::get_if<int64_t>(found)) return std::optional(*number);
  const auto* number = std::get_if<uint64_t>(found);
  if (number == nullptr || *number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return mistyped(key, "an integer");
  }
  return std::optional(static_cast<int64_t>(*number));
}

Result<std::optional<double>> Gguf::number(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return std::optional<double>();
  const auto* number = std::get_if<double>(found);
  if (number == nullptr) return mistyped(key, "a floating-point number");
  return std::optional(*number);
}

Result<std::optional<bool>> Gguf::boolean(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return std::optional<bool>();
  const auto* flag = std::get_if<bool>(found);
  if (flag == nullptr) return mistyped(key, "true or false");
  return std::optional(*flag);
}

Result<std::optional<std::string_view>> Gguf::string(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return std::optional<std::string_view>();
  const auto* text = std::get_if<std::string_view>(found);
  if (text == nullptr) return mistyped(key, "a string");
  return std::optional(*text);
}

Result<const GgufArray*> Gguf::strings(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return static_cast<const GgufArray*>(nullptr);
  const auto* array = std::get_if<GgufArray>(found);
  if (array == nullptr || array->type != GgufType::string) return mistyped(key, "an array of strings");
  return array;
}

Result<const GgufArray*> Gguf::integers(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return static_cast<const GgufArray*>(nullptr);
  const auto* array = std::get_if<GgufArray>(found);
  if (array == nullptr || !array->is_integer()) return mistyped(key, "an array of integers");
  return array;
}

Result<const GgufArray*> Gguf::bytes(std::string_view key) const {
  const GgufValue* found = value(key);
  if (found == nullptr) return static_cast<const GgufArray*>(nullptr);
  const auto* array = std::get_if<GgufArray>(found);
  if (array == nullptr || array->type != GgufType::u8) return mistyped(key, "an array of bytes");
  return array;
}

std::string_view Gguf::header() const {
  return {reinterpret_cast<const char*>(file_.bytes().data()), header_.data_begin};
}

bool is_gguf(const Path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  char magic[4] = {};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "GGUF";
}

}  // namespace nibble
