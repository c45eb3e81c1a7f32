#include "checkpoint/test_gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/synthetic.h"
#include "checkpoint/test_folder.h"
#include "io/gguf_writer.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint::testing {

GgufExport exported(const Path& folder, const Path& file, std::optional<GgufMatrices> matrices) {
  GgufExportOptions options;
  options.matrices = matrices;
  Result<GgufExport> out = export_gguf(folder, file, options);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? std::move(*out) : GgufExport();
}

LoadedModel loaded(const Path& path) {
  Result<LoadedModel> out = load_checkpoint(path);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? std::move(*out) : LoadedModel();
}

GgufUnpack unpacked(const Path& file, const Path& folder) {
  std::filesystem::create_directory(folder);
  Result<GgufUnpack> out = unpack_gguf(file, folder);
  EXPECT_TRUE(out.ok()) << out.status().text();
  return out.ok() ? *out : GgufUnpack();
}

void rewrite(const Path& from, const Path& to, const std::function<bool(std::string_view key)>& keep, const Edit& edit,
             const Replace& replace) {
  const Gguf file = std::move(Gguf::open(from)).value();
  GgufMetadata metadata;
  for (const auto& [key, value] : file.metadata()) {
    if (!keep(key)) continue;
    if (const auto* n = std::get_if<uint64_t>(&value)) metadata.add(key, static_cast<uint32_t>(*n));
    if (const auto* x = std::get_if<double>(&value)) metadata.add(key, static_cast<float>(*x));
    if (const auto* b = std::get_if<bool>(&value)) metadata.add(key, *b);
    if (const auto* s = std::get_if<std::string_view>(&value)) metadata.add(key, *s);
    const auto* array = std::get_if<GgufArray>(&value);
    if (array == nullptr) continue;
    if (array->type == GgufType::u8) {
      metadata.add(key, array->bytes);
    } else if (array->type == GgufType::string) {
      metadata.add(key, std::vector<std::string>(array->strings.begin(), array->strings.end()));
    } else {
      std::vector<int32_t> numbers;
      for (uint64_t i = 0; i < array->count; ++i) numbers.push_back(static_cast<int32_t>(array->integer(i)));
      metadata.add(key, numbers);
    }
  }
  std::vector<GgufDeclaration> tensors;
  for (const GgufTensor& t : file.tensors()) {
    const auto other = replace ? replace(t.name) : std::nullopt;
    tensors.push_back({t.name, other ? other->type : t.type, t.shape});
  }
  auto writer = GgufWriter::create(to, metadata, tensors);
  ASSERT_TRUE(writer.ok()) << writer.status().text();
  for (const GgufTensor& t : file.tensors()) {
    const auto other = replace ? replace(t.name) : std::nullopt;
    const auto bytes = other ? other->bytes : file.bytes(t);
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    if (edit) edit(t.name, copy);
    ASSERT_TRUE(writer->append(t.name, copy).ok());
  }
  ASSERT_TRUE(writer->commit().ok());
}

void write_random(const Path& folder, int64_t ratio, bool tied, int64_t mtp, int64_t hidden) {
  model::Config c = *model::builtin_config("0.8b");
  c.hidden = hidden;
  c.intermediate = 2 * hidden;
  c.layers = 4;
  c.layer_types.resize(4);
  c.heads = 2;
  c.kv_heads = 1;
  c.key_heads = 2;
  c.value_heads = 2 * ratio;
  c.head_dim = c.key_head_dim = c.value_head_dim = 32;
  c.rotary_dim = 8;
  c.tie_embeddings = tied;
  c.mtp_layers = mtp;
  ThreadPool pool(1);
  ASSERT_TRUE(write_synthetic_checkpoint(folder, c, pool).ok());
  // Norms of a synthetic model are all alike: overwrite every vector with numbers that differ.
  const Path path = folder / "model.safetensors";
  std::string bytes = *read_file(path);
  const auto file = std::move(Safetensors::open(path)).value();
  Rng rng(static_cast<uint64_t>(ratio));
  for (const TensorInfo& info : file.tensors()) {
    if (info.shape.size() == 2) continue;
    const size_t at = static_cast<size_t>(file.bytes(info).data() - file.mapping().bytes().data());
    const size_t size = info.type == DType::bf16 ? 2 : 4;
    for (size_t i = 0; i < info.bytes / size; ++i) {
      const float value = rng.uniform(-1, 1) * std::exp2(-static_cast<float>(rng.below(24)));
      const uint16_t narrow = f32_to_bf16(value);
      std::memcpy(bytes.data() + at + i * size, size == 2 ? static_cast<const void*>(&narrow) : &value, size);
    }
  }
  write_plain(path, bytes);
}

}  // namespace nibble::checkpoint::testing
