#include "io/safetensors_writer.h"

#include <cstring>
#include <unordered_set>

#include "io/json.h"
#include "io/safetensors_header.h"

namespace nibble {
namespace {

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.raw()), tensor.bytes()};
}

// Bytes that are not UTF-8 become U+FFFD instead of an exception.
std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Length and JSON, padded with spaces to 8 bytes so that the data section begins aligned.
std::string header_bytes(const std::vector<TensorDeclaration>& tensors, const SafetensorsMetadata& metadata) {
  // Objects are written key by key: nlohmann's ordered object looks names up linearly, which 100,000 tensors forbid.
  std::string json = "{\"__metadata__\":" + json_text(Json(metadata));
  uint64_t offset = 0;
  for (const TensorDeclaration& t : tensors) {
    fmt::format_to(std::back_inserter(json), ",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                   json_text(Json(t.name)), t.dtype, fmt::join(t.shape, ","), offset, offset + t.bytes);
    offset += t.bytes;
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>((uint64_t{json.size()} >> (8 * i)) & 0xFF);
  return length + json;
}

// Whether the file is a shard of this header with all its bytes.
bool holds(const Path& file, std::string_view header, uint64_t bytes) {
  const Result<MappedFile> mapped = MappedFile::open(file);
  if (!mapped.ok() || mapped->bytes().size() != header.size() + bytes) return false;
  return std::memcmp(mapped->bytes().data(), header.data(), header.size()) == 0;
}

}  // namespace

TensorDeclaration::TensorDeclaration(std::string name, DType type, const Shape& shape)
    : name(std::move(name)),
      dtype(safetensors_name(type)),
      bytes(static_cast<uint64_t>(shape.elements()) * size_of(type)) {
  for (int i = 0; i < shape.rank(); ++i) this->shape.push_back(shape[i]);
}

TensorDeclaration::TensorDeclaration(const TensorInfo& info)
    : name(info.name), dtype(info.dtype), shape(info.shape), bytes(info.bytes) {}

SafetensorsWriter::SafetensorsWriter(OutputFile file, std::vector<TensorDeclaration> tensors)
    : file_(std::move(file)), tensors_(std::move(tensors)) {}

Result<SafetensorsWriter> SafetensorsWriter::create(const Path& path, std::vector<TensorDeclaration> tensors,
                                                    const SafetensorsMetadata& metadata) {
  std::unordered_set<std::string_view> names;
  for (const TensorDeclaration& t : tensors) {
    if (!names.insert(t.name).second) return invalid_argument("{}: declared twice ({})", t.name, path.string());
  }
  NIBBLE_TRY(file, OutputFile::create(path));
  NIBBLE_RETURN_IF_ERROR(file.write(header_bytes(tensors, metadata)));
  SafetensorsWriter writer(std::move(file), std::move(tensors));
  writer.skip_complete();
  return writer;
}

void SafetensorsWriter::skip_complete() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes) {
    ++current_;
    written_ = 0;
  }
}

Status SafetensorsWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  NIBBLE_CHECK(current_ < tensors_.size() && tensors_[current_].name == name);
  NIBBLE_CHECK(bytes.size() <= tensors_[current_].bytes - written_);
  NIBBLE_RETURN_IF_ERROR(file_.write(bytes));
  written_ += bytes.size();
  skip_complete();
  return {};
}

Status SafetensorsWriter::append(std::string_view name, const Tensor& tensor) {
  return append(name, bytes_of(tensor));
}

Status SafetensorsWriter::commit() {
  NIBBLE_CHECK(current_ == tensors_.size());
  return file_.commit();
}

Result<ShardedSafetensorsWriter> ShardedSafetensorsWriter::create(const Path& folder,
                                                                  std::vector<TensorDeclaration> tensors,
                                                                  SafetensorsMetadata metadata, uint64_t shard_bytes,
                                                                  Existing existing) {
  ShardedSafetensorsWriter out;
  out.folder_ = folder;
  out.metadata_ = std::move(metadata);
  out.shards_.emplace_back();
  for (TensorDeclaration& t : tensors) {
    Shard* shard = &out.shards_.back();
    if (shard->bytes > 0 && shard->bytes + t.bytes > shard_bytes) shard = &out.shards_.emplace_back();
    if (!out.places_.try_emplace(t.name, Place{out.shards_.size() - 1, t.bytes}).second) {
      return invalid_argument("{}: declared twice ({})", t.name, folder.string());
    }
    shard->bytes += t.bytes;
    out.total_bytes_ += t.bytes;
    shard->tensors.push_back(std::move(t));
  }
  const size_t n = out.shards_.size();
  for (size_t i = 0; i < n; ++i) {
    Shard& shard = out.shards_[i];
    shard.file_name = n == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n);
    if (existing == Existing::keep && shard.bytes > 0) {
      shard.kept = holds(folder / shard.file_name, header_bytes(shard.tensors, out.metadata_), shard.bytes);
    }
  }
  NIBBLE_RETURN_IF_ERROR(out.begin_shard());
  return out;
}

Status ShardedSafetensorsWriter::begin_shard() {
  const Shard& shard = shards_[current_];
  written_ = 0;
  if (shard.kept) return {};
  NIBBLE_TRY(writer, SafetensorsWriter::create(folder_ / shard.file_name, shard.tensors, metadata_));
  writer_ = std::move(writer);
  return {};
}

bool ShardedSafetensorsWriter::kept(std::string_view name) const {
  const auto place = places_.find(std::string(name));
  return place != places_.end() && shards_[place->second.shard].kept;
}

// Counts bytes that were written or were there.
Status ShardedSafetensorsWriter::finish(uint64_t bytes) {
  written_ += bytes;
  if (written_ < shards_[current_].bytes || !writer_) return {};
  NIBBLE_RETURN_IF_ERROR(writer_->commit());
  writer_.reset();
  return {};
}

Status ShardedSafetensorsWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  if (written_ == shards_[current_].bytes) {
    NIBBLE_CHECK(current_ + 1 < shards_.size());
    ++current_;
    NIBBLE_RETURN_IF_ERROR(begin_shard());
  }
  if (!shards_[current_].kept) NIBBLE_RETURN_IF_ERROR(writer_->append(name, bytes));
  return finish(bytes.size());
}

Status ShardedSafetensorsWriter::skip(std::string_view name) {
  NIBBLE_CHECK(kept(name));
  const uint64_t bytes = places_.at(std::string(name)).bytes;
  if (bytes == 0) return {};
  if (written_ == shards_[current_].bytes) {
    NIBBLE_CHECK(current_ + 1 < shards_.size());
    ++current_;
    NIBBLE_RETURN_IF_ERROR(begin_shard());
  }
  NIBBLE_CHECK(shards_[current_].kept);
  return finish(bytes);
}

Status ShardedSafetensorsWriter::append(std::string_view name, const Tensor& tensor) {
  return append(name, bytes_of(tensor));
}

Status ShardedSafetensorsWriter::commit() {
  NIBBLE_CHECK(current_ + 1 == shards_.size() && written_ == shards_[current_].bytes);
  if (writer_) NIBBLE_RETURN_IF_ERROR(writer_->commit());  // a shard without bytes
  if (shards_.size() == 1) return {};
  std::map<std::string, std::string> weight_map;  // sorted, as transformers writes it
  for (const Shard& shard : shards_) {
    for (const TensorDeclaration& t : shard.tensors) weight_map[t.name] = shard.file_name;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", weight_map}};
  return write_file(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace nibble
