#include "checkpoint/test_folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "model/forward.h"
#include "ops/quant/nvfp4.h"

namespace nibble::checkpoint::testing {

std::vector<float> logits(const LoadedModel& model) {
  ThreadPool pool(1);
  Context cx(pool);
  constexpr int64_t kIds = 40;
  const model::Config& config = model.weights.config;
  std::vector<int32_t> ids(kIds);
  for (int64_t i = 0; i < kIds; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(37 * i % config.vocab);
  OwnedTensor hidden(DType::f32, {kIds, config.hidden}), out(DType::f32, {kIds, config.vocab});
  model::State state(config, kIds, DType::f32);
  EXPECT_TRUE(model::forward(cx, model.weights, ids, state, hidden.view).ok());
  model::head(cx, model.weights, hidden.view, out.view);
  return {out.view.f32_span().begin(), out.view.f32_span().end()};
}

Json read_json_file(const Path& path) {
  Result<std::string> text = read_file(path);
  EXPECT_TRUE(text.ok()) << text.status().text();
  Result<Json> json = parse_json(*text, path.filename().string());
  EXPECT_TRUE(json.ok()) << json.status().text();
  return *json;
}

void write_plain(const Path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TestCheckpoint TestCheckpoint::micro(const std::string& variant) {
  const Path folder = Path(NIBBLE_SOURCE_DIR "/tests/golden") / variant;
  TestCheckpoint out;
  out.config = read_json_file(folder / "config.json");
  Result<Safetensors> file = Safetensors::open(folder / "model.safetensors");
  EXPECT_TRUE(file.ok()) << file.status().text();
  for (const TensorInfo& info : file->tensors()) {
    const auto bytes = file->bytes(info);
    out.tensors[info.name] = {info.dtype, info.shape,
                              std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
  }
  return out;
}

TestCheckpoint TestCheckpoint::micro_nvfp4(const std::string& algo) {
  TestCheckpoint out = micro();
  ThreadPool pool(1);
  Context cx(pool);
  Json ignore = {"lm_head", "*linear_attn.in_proj_a", "*linear_attn.in_proj_b", "*conv1d"};
  std::map<std::string, Blob> added;
  for (auto& [name, blob] : out.tensors) {
    const bool kept = blob.shape.size() != 2 || name.ends_with("in_proj_a.weight") ||
                      name.ends_with("in_proj_b.weight") || name.ends_with("lm_head.weight") ||
                      name.ends_with("embed_tokens.weight");
    if (kept) continue;
    const int64_t n = blob.shape[0], k = blob.shape[1];
    const Tensor w = Tensor::constant(blob.bytes.data(), DType::f32, {n, k});
    const float amax = ops::tensor_amax(cx, w).amax;
    const OwnedTensor codes(DType::u8, {n, k / 2}), scales(DType::f8e4m3, {n, k / 16});
    ops::nvfp4_quantize(cx, w, amax, codes.view, scales.view);
    const std::string module = name.substr(0, name.size() - std::string_view(".weight").size());
    const auto text = [](const Tensor& t) { return std::string(static_cast<const char*>(t.raw()), t.bytes()); };
    const auto scalar = [](float x) { return std::string(reinterpret_cast<const char*>(&x), sizeof x); };
    blob = {"U8", {n, k / 2}, text(codes.view)};
    added[module + ".weight_scale"] = {"F8_E4M3", {n, k / 16}, text(scales.view)};
    added[module + ".weight_scale_2"] = {"F32", {}, scalar(nvfp4_tensor_scale(amax).ws2)};
    if (algo == "NVFP4") added[module + ".input_scale"] = {"F32", {}, scalar(0.01f)};
  }
  out.tensors.merge(added);
  out.config["quantization_config"] = {
      {"quant_method", "modelopt"}, {"quant_algo", algo}, {"ignore", ignore}, {"producer", {{"name", "modelopt"}}}};
  return out;
}

namespace {

using Blobs = std::vector<std::pair<std::string, const Blob*>>;

void write_safetensors(const Path& file, const Blobs& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}", data;
  for (const auto& [name, blob] : tensors) {
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", Json(name).dump(),
                          blob->dtype, fmt::join(blob->shape, ","), data.size(), data.size() + blob->bytes.size());
    data += blob->bytes;
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>((uint64_t{header.size()} >> (8 * i)) & 0xFF);
  write_plain(file, length + header + data);
}

}  // namespace

void TestCheckpoint::write(const Path& folder, size_t shards) const {
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::vector<Blobs> parts(shards);
  Json map = Json::object();
  size_t next = 0;
  for (const auto& [name, blob] : tensors) {
    const size_t shard = next++ % shards;
    parts[shard].emplace_back(name, &blob);
    map[name] = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
  }
  for (size_t i = 0; i < shards; ++i) {
    write_safetensors(
        folder / (shards == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards)),
        parts[i]);
  }
  if (shards > 1) write_plain(folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  write_plain(folder / "config.json", config.dump(1));
  for (const auto& [name, text] : files) write_plain(folder / name, text);
}

}  // namespace nibble::checkpoint::testing
