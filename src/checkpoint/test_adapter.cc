#include "checkpoint/test_adapter.h"

#include "base/rng.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint::testing {

Blob TestAdapter::random(std::vector<int64_t> shape, uint64_t seed, const std::string& dtype) {
  Blob blob{dtype, std::move(shape), ""};
  int64_t elements = 1;
  for (int64_t dim : blob.shape) elements *= dim;
  Rng rng(seed);
  for (int64_t i = 0; i < elements; ++i) {
    const float x = 0.1f * rng.normal();
    const uint16_t half = dtype == "BF16" ? f32_to_bf16(x) : f32_to_f16(x);
    blob.bytes += dtype == "F32" ? std::string(reinterpret_cast<const char*>(&x), sizeof x)
                                 : std::string(reinterpret_cast<const char*>(&half), sizeof half);
  }
  return blob;
}

TestAdapter TestAdapter::of(const TestCheckpoint& base, const std::vector<std::string>& modules) {
  TestAdapter out;
  uint64_t seed = 100;
  for (const std::string& module : modules) {
    const Blob& weight = base.tensors.at(module + ".weight");
    out.tensors[name(module, 'A')] = random({4, weight.shape[1]}, seed++);
    out.tensors[name(module, 'B')] = random({weight.shape[0], 4}, seed++);
  }
  out.config = {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", modules}, {"bias", "none"}};
  return out;
}

void TestAdapter::write(const Path& folder) const {
  TestCheckpoint files;
  files.tensors = tensors;
  files.write(folder);
  std::filesystem::rename(folder / "model.safetensors", folder / "adapter_model.safetensors");
  std::filesystem::remove(folder / "config.json");
  write_plain(folder / "adapter_config.json", config.dump(1));
}

}  // namespace nibble::checkpoint::testing
