#include "text/vocabulary.h"

#include "base/check.h"

namespace nibble::text {

void Vocabulary::set(int32_t id, std::string_view bytes, Kind kind) {
  NIBBLE_CHECK(id >= 0);
  if (id >= id_limit()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[id] = {bytes_.size(), static_cast<uint32_t>(bytes.size()), kind};
  bytes_ += bytes;
}

std::string_view Vocabulary::bytes(int32_t id) const {
  if (!known_range(id)) return {};
  return std::string_view(bytes_).substr(tokens_[id].offset, tokens_[id].size);
}

}  // namespace nibble::text
