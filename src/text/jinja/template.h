// Template: a parsed Jinja template, as Hugging Face configures Jinja for chat (trim_blocks, lstrip_blocks, loop
// controls, immutable sandbox). Immutable and safe from any thread.
//
// The language: set, namespace, if, for … else, break, continue, macro, call, with, filter, set blocks, generation,
// raw, comments, white space control; all expressions; the filters of filters.h, the tests of tests.h, the methods of
// methods.h, the functions of functions.h. Not in it, and an error with its line when a template uses it: include,
// import, extends, block, do, autoescape, recursive loops, * and ** arguments, % formatting.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/budget.h"

namespace nibble::text::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

class Template {
 public:
  /// At most 1 MiB of valid UTF-8. Errors read "name: line N: cause".
  static Result<Template> parse(std::string_view source, std::string name);

  /// The text, or what went wrong and in which line. `variables` are the globals.
  Result<Str> render(Variables variables, const RenderLimits& limits = {}) const;

  /// Names that the template may read before it binds them itself, in order of appearance; for each whether it is only
  /// used as a whole (printed, tested, compared, filtered) and never called, subscripted, dotted or looped over.
  struct FreeName {
    std::string name;
    bool scalar = true;
  };
  std::vector<FreeName> free_names() const;

  const std::string& name() const { return name_; }

 private:
  Template() = default;

  std::string name_;
  std::shared_ptr<const Block> block_;
};

/// The free names of a syntax tree; see Template::free_names.
std::vector<Template::FreeName> find_free_names(const Block& block);

}  // namespace nibble::text::jinja
