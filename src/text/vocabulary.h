// The tokens of a tokenizer by id: their bytes, and whether they are added or special.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

/// Filled once, then const and safe from any thread. Ids need not be dense.
class Vocabulary {
 public:
  enum class Kind : uint8_t { unknown, plain, added, special };

  /// Sets the token of an id that is not negative; what it was before is forgotten.
  void set(int32_t id, std::string_view bytes, Kind kind);

  Kind kind(int32_t id) const { return known_range(id) ? tokens_[id].kind : Kind::unknown; }
  /// Empty if the id is unknown. Valid until the next set().
  std::string_view bytes(int32_t id) const;
  int32_t id_limit() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  struct Token {
    size_t offset = 0;
    uint32_t size = 0;
    Kind kind = Kind::unknown;
  };
  bool known_range(int32_t id) const { return id >= 0 && id < id_limit(); }

  std::string bytes_;  // of all tokens, one after the other
  std::vector<Token> tokens_;
};

}  // namespace nibble::text
