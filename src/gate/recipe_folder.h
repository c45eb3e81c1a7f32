// The files that a recipe is made of: beside it, or in the binary.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "base/sha256.h"
#include "io/json.h"

namespace nibble::gate {

/// Reads files by name and remembers their names and texts for the recipe's hash. Not thread-safe.
class RecipeFolder {
 public:
  /// The text of a file of the binary, or nothing.
  using Embedded = std::function<std::optional<std::string_view>(const std::string& name)>;

  /// Files are looked for in `folder` unless it is empty, then in the binary.
  RecipeFolder(Path folder, Embedded embedded, uint64_t max_file_bytes);

  /// `corrupt` for a name that leads elsewhere, `not_found`.
  Result<std::string> read(const std::string& name);
  Result<Json> read_json(const std::string& name);

  /// A string "@file" is replaced by the file: its text, or its JSON where the name ends so. Anything else stays.
  Status include(Json& json);

  /// Adds a text that is part of the recipe, too.
  void add(std::string_view text) { hash_.add(text); }
  /// SHA-256 over what was read and added, in this order; once.
  std::string hash() { return hash_.hex(); }

 private:
  Path folder_;
  Embedded embedded_;
  uint64_t max_file_bytes_;
  Sha256 hash_;
};

}  // namespace nibble::gate
