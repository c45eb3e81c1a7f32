#include "quantize/hidden_states.h"

namespace nibble::quantize {

Result<HiddenStates> HiddenStates::open(const Path& path, int64_t tokens, int64_t hidden) {
  NIBBLE_TRY(file, MappedFile::open(path));
  const auto expected = static_cast<size_t>(tokens * hidden) * sizeof(float);
  if (file.bytes().size() != expected) {
    return corrupt("hidden states: expected {} bytes, got {} ({})", expected, file.bytes().size(), path.string())
        .with_hint("remove the unfinished output and start again");
  }
  return HiddenStates(std::move(file), tokens, hidden);
}

Tensor HiddenStates::rows(int64_t begin, int64_t end) const {
  const auto* values = reinterpret_cast<const float*>(file_.bytes().data());
  return Tensor::constant(values + begin * hidden_, DType::f32, {end - begin, hidden_});
}

void HiddenStates::drop(int64_t begin, int64_t end) const {
  const auto row = static_cast<size_t>(hidden_) * sizeof(float);
  file_.drop(static_cast<size_t>(begin) * row, static_cast<size_t>(end - begin) * row);
}

Result<HiddenStatesWriter> HiddenStatesWriter::create(const Path& path) {
  NIBBLE_TRY(file, OutputFile::create(path));
  return HiddenStatesWriter(std::move(file));
}

Status HiddenStatesWriter::append(const Tensor& rows) {
  return file_.write({static_cast<const std::byte*>(rows.raw()), rows.bytes()});
}

}  // namespace nibble::quantize
