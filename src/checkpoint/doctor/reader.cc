#include "checkpoint/doctor/reader.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr std::string_view kNames[] = {
    "vllm", "sglang", "trtllm", "transformers-4", "transformers-5", "compressed-tensors", "llama.cpp"};

}  // namespace

std::string_view name(Reader reader) {
  return kNames[static_cast<size_t>(reader)];
}

std::optional<Reader> reader_named(std::string_view word) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == word) return static_cast<Reader>(i);
  }
  return {};
}

const std::vector<std::string>& reader_names() {
  static const std::vector<std::string> kAll(std::begin(kNames), std::end(kNames));
  return kAll;
}

std::vector<std::string_view> names(Readers readers) {
  std::vector<std::string_view> out;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (readers.has(static_cast<Reader>(i))) out.push_back(kNames[i]);
  }
  return out;
}

}  // namespace nibble::checkpoint::doctor
