// Reader: a program that a checkpoint folder is made for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::checkpoint::doctor {

enum class Reader : uint8_t {
  vllm,                // 0.16 to 0.25, which bring their own copy of the config classes
  sglang,              // 0.5
  trtllm,              // TensorRT-LLM: ModelOpt's layout, by hf_quant_config.json
  transformers4,       // what runs beside transformers 4.57, which itself does not know the family
  transformers5,       // from 5.2, where the family is known
  compressed_tensors,  // that library under transformers 5, which unpacks quantized weights
  llamacpp,            // its converter to GGUF
};

/// A set of readers.
class Readers {
 public:
  constexpr Readers() = default;
  constexpr Readers(std::initializer_list<Reader> readers) {
    for (const Reader reader : readers) bits_ |= 1u << static_cast<unsigned>(reader);
  }
  static constexpr Readers all() {
    Readers readers;
    readers.bits_ = (1u << 7) - 1;
    return readers;
  }
  constexpr bool has(Reader reader) const { return (bits_ >> static_cast<unsigned>(reader) & 1u) != 0; }
  constexpr bool operator==(const Readers&) const = default;

 private:
  unsigned bits_ = 0;
};

/// The word for flags and reports: "vllm", "transformers-5", "llama.cpp".
std::string_view name(Reader reader);
std::optional<Reader> reader_named(std::string_view word);
const std::vector<std::string>& reader_names();

/// Their words, in the order of the enumeration.
std::vector<std::string_view> names(Readers readers);

}  // namespace nibble::checkpoint::doctor
