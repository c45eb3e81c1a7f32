#include "io/gguf_writer.h"

#include <bit>
#include <unordered_set>

namespace nibble {
namespace {

template <class T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

void put_text(std::string& out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out += text;
}

uint64_t padding(uint64_t size) {
  return (kGgufAlignment - size % kGgufAlignment) % kGgufAlignment;
}

}  // namespace

void GgufMetadata::begin(std::string_view key, GgufType type) {
  put_text(bytes_, key);
  put(bytes_, static_cast<uint32_t>(type));
  ++count_;
}

void GgufMetadata::begin_array(std::string_view key, GgufType type, uint64_t count) {
  begin(key, GgufType::array);
  put(bytes_, static_cast<uint32_t>(type));
  put(bytes_, count);
}

void GgufMetadata::add(std::string_view key, uint32_t value) {
  begin(key, GgufType::u32);
  put(bytes_, value);
}

void GgufMetadata::add(std::string_view key, float value) {
  begin(key, GgufType::f32);
  put(bytes_, std::bit_cast<uint32_t>(value));
}

void GgufMetadata::add(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  put(bytes_, static_cast<uint8_t>(value));
}

void GgufMetadata::add(std::string_view key, std::string_view value) {
  begin(key, GgufType::string);
  put_text(bytes_, value);
}

void GgufMetadata::add(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufType::i32, values.size());
  for (const int32_t value : values) put(bytes_, static_cast<uint32_t>(value));
}

void GgufMetadata::add(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::string, values.size());
  for (const std::string& value : values) put_text(bytes_, value);
}

void GgufMetadata::add(std::string_view key, std::span<const std::byte> bytes) {
  begin_array(key, GgufType::u8, bytes.size());
  bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

uint64_t GgufDeclaration::bytes() const {
  const GgmlFormat& format = ggml_format(type);
  uint64_t elements = 1;
  for (const int64_t dim : shape) elements *= static_cast<uint64_t>(dim);
  return elements / static_cast<uint64_t>(format.weights) * static_cast<uint64_t>(format.bytes);
}

Result<GgufWriter> GgufWriter::create(const Path& path, const GgufMetadata& metadata,
                                      std::vector<GgufDeclaration> tensors) {
  std::string header = "GGUF";
  put(header, uint32_t{3});
  put(header, uint64_t{tensors.size()});
  put(header, metadata.count());
  header += metadata.bytes();
  std::unordered_set<std::string_view> names;
  uint64_t offset = 0;
  for (const GgufDeclaration& t : tensors) {
    NIBBLE_CHECK(!t.shape.empty() && t.shape.size() <= 4 && t.shape.back() % ggml_format(t.type).weights == 0);
    if (t.name.empty() || t.name.size() > kGgufMaxNameBytes) {
      return invalid_argument("{}: expected a name of 1 to {} bytes, got {} ({})", t.name, kGgufMaxNameBytes,
                              t.name.size(), path.filename().string());
    }
    if (!names.insert(t.name).second) {
      return invalid_argument("{}: declared twice ({})", t.name, path.filename().string());
    }
    put_text(header, t.name);
    put(header, static_cast<uint32_t>(t.shape.size()));
    for (size_t i = t.shape.size(); i-- > 0;) put(header, static_cast<uint64_t>(t.shape[i]));
    put(header, static_cast<uint32_t>(t.type));
    put(header, offset);
    offset += t.bytes() + padding(t.bytes());
  }
  header.append(padding(header.size()), '\0');
  NIBBLE_TRY(file, OutputFile::create(path));
  NIBBLE_RETURN_IF_ERROR(file.write(header));
  return GgufWriter(std::move(file), std::move(tensors));
}

Status GgufWriter::pad() {
  return file_.write(std::string(padding(file_.size()), '\0'));
}

Status GgufWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  NIBBLE_CHECK(current_ < tensors_.size() && tensors_[current_].name == name);
  const uint64_t whole = tensors_[current_].bytes();
  NIBBLE_CHECK(bytes.size() <= whole - written_);
  NIBBLE_RETURN_IF_ERROR(file_.write(bytes));
  written_ += bytes.size();
  if (written_ < whole) return {};
  ++current_;
  written_ = 0;
  return pad();
}

Status GgufWriter::commit() {
  NIBBLE_CHECK(current_ == tensors_.size());
  return file_.commit();
}

}  // namespace nibble
