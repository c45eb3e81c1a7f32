// For tests: exports compared with what ModelOpt 0.47 itself wrote (tests/golden/modelopt).
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "io/json.h"
#include "io/safetensors.h"
#include "quantize/quantize.h"

namespace nibble::quantize::testing_modelopt {

inline constexpr const char* kGolden = NIBBLE_SOURCE_DIR "/tests/golden/";
inline constexpr const char* kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

inline Json read_json(const Path& file) {
  const Result<std::string> text = read_file(file);
  EXPECT_TRUE(text.ok()) << text.status().text();
  Result<Json> json = parse_json(*text, file.string());
  EXPECT_TRUE(json.ok()) << json.status().text();
  return std::move(json).value();
}

inline Json golden_json(const std::string& name) {
  return read_json(Path(kGolden) / "modelopt" / name);
}

inline constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;

inline uint64_t fnv1a(std::span<const std::byte> bytes, uint64_t hash = kFnvOffset) {
  for (std::byte byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return hash;
}

inline std::string hex(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

class ModelOptGolden : public testing::Test {
 protected:
  ~ModelOptGolden() override { std::filesystem::remove_all(folder_); }

  // Quantizes into a fresh folder and opens what was written.
  SafetensorsFolder quantize(const Path& source, const QuantizeOptions& options) {
    std::filesystem::remove_all(folder_);
    Result<QuantizeReport> report = quantize_folder(source, folder_, options, pool_);
    EXPECT_TRUE(report.ok()) << report.status().text();
    report_ = std::move(report).value();
    Result<SafetensorsFolder> written = SafetensorsFolder::open(folder_);
    EXPECT_TRUE(written.ok()) << written.status().text();
    return std::move(written).value();
  }

  std::set<std::string> quantized_modules() const {  // in byte order
    std::set<std::string> names;
    for (const QuantizedTensor& tensor : report_.quantized) names.insert(tensor.module);
    return names;
  }

  static std::span<const std::byte> bytes(const SafetensorsFolder& folder, const std::string& name) {
    const SafetensorsFolder::Entry* entry = folder.find(name);
    EXPECT_NE(entry, nullptr) << name;
    return entry == nullptr ? std::span<const std::byte>() : entry->file->bytes(*entry->info);
  }

  // Over all quantized linears in byte order of their names: codes, block scales, tensor scale.
  std::pair<std::string, uint64_t> hash_of_all(const SafetensorsFolder& folder) const {
    uint64_t hash = kFnvOffset, total = 0;
    for (const std::string& module : quantized_modules()) {
      for (const char* suffix : {".weight", ".weight_scale", ".weight_scale_2"}) {
        const std::span<const std::byte> part = bytes(folder, module + suffix);
        hash = fnv1a(part, hash);
        total += part.size();
      }
    }
    return {hex(hash), total};
  }

  static std::string scalar_hex(const SafetensorsFolder& folder, const std::string& name) {
    float value = 0;
    const std::span<const std::byte> raw = bytes(folder, name);
    EXPECT_EQ(raw.size(), sizeof value) << name;
    if (raw.size() == sizeof value) std::memcpy(&value, raw.data(), sizeof value);
    return fmt::format("{:08x}", f32_bits(value));
  }

  static void expect_linear(const SafetensorsFolder& folder, const std::string& module, const Json& golden) {
    EXPECT_EQ(hex(fnv1a(bytes(folder, module + ".weight"))), golden["weight"]) << module;
    EXPECT_EQ(hex(fnv1a(bytes(folder, module + ".weight_scale"))), golden["scale"]) << module;
    EXPECT_EQ(scalar_hex(folder, module + ".weight_scale_2"), golden["weight_scale_2"]) << module;
    EXPECT_EQ(Json(folder.find(module + ".weight")->info->shape), golden["shape"]) << module;
    const bool has_input_scale = folder.find(module + ".input_scale") != nullptr;
    EXPECT_EQ(has_input_scale, golden.contains("input_scale")) << module;
    if (has_input_scale) {
      EXPECT_EQ(scalar_hex(folder, module + ".input_scale"), golden["input_scale"]) << module;
    }
  }

  void expect_folder(const SafetensorsFolder& folder, const Json& hashes) const {
    EXPECT_EQ(hash_of_all(folder).first, hashes["g5"]);
    EXPECT_EQ(hash_of_all(folder).second, hashes["bytes"]);
    EXPECT_EQ(quantized_modules().size(), hashes["linears"].size());
    for (const auto& [module, golden] : hashes["linears"].items()) expect_linear(folder, module, golden);
  }

  ThreadPool pool_{2};
  Path folder_ = Path(testing::TempDir()) /
                 fmt::format("nibble_{}", testing::UnitTest::GetInstance()->current_test_info()->name());
  QuantizeReport report_;
};

inline QuantizeOptions with_input_amax(const std::string& golden) {
  QuantizeOptions options;
  options.recipe = uniform_recipe(Scales::max, Inputs::a4);
  const Json amaxes = golden_json(golden + "/amax_before_fusing.json");
  for (const auto& [module, amax] : amaxes.items()) {
    options.input_amax[module] = amax["input_amax"].get<float>();
  }
  return options;
}

}  // namespace nibble::quantize::testing_modelopt
