// What the loaders of suite.h have in common. Not thread-safe.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/sha256.h"
#include "gate/suite.h"
#include "io/json.h"

namespace nibble::gate {

/// Builds a suite from the files of one folder.
class SuiteLoader {
 public:
  /// `params` of the recipe: temperature 0, seed 1, thinking off, and `max_tokens`.
  SuiteLoader(std::string name, std::string title, int64_t version, int max_tokens, Path folder);

  bool has(const std::string& file) const;
  /// The first of the files that is there; `not_found` names them all.
  Result<std::string> first_of(std::span<const std::string_view> files) const;

  /// Calls `each` for every line of a file with the object on it and "file: line N". The text goes into the hash.
  Status for_each_object(const std::string& file,
                         const std::function<Status(const Json& object, const std::string& where)>& each);

  /// A case of one turn, with the suite's parameters. `corrupt` for an id that was there before.
  Status add_case(Case one, const std::string& where);
  void add_gate(const std::string& id);
  void say(std::string line) { suite_.about.push_back(std::move(line)); }
  /// Says that another number than the published one was loaded, where it is.
  void compare_count(const std::string& what, size_t loaded, size_t published);

  /// `corrupt` where no case was added.
  Result<Suite> finish();

 private:
  Path folder_;
  Suite suite_;
  std::set<std::string> ids_;
  Sha256 hash_;
};

/// The members of an object of a suite. `corrupt`, with `where` and the key, for another type.
Result<std::string> text_member(const Json& object, const char* key, const std::string& where);
Result<const Json*> list_member(const Json& object, const char* key, const std::string& where);

Status load_bfcl(SuiteLoader& loader);
Status load_gsm8k(SuiteLoader& loader);
Status load_ifeval(SuiteLoader& loader);

}  // namespace nibble::gate
