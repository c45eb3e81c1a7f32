// The SAX handler behind parse_json, for parsers that take a large part of a document into a form of their own: derive,
// hide the events of that part, and hand the rest on. Give it to Json::sax_parse; when that says false, error says why.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "io/json.h"

namespace nibble {

/// Builds the document through nlohmann's own DOM builder and stops at what the limits forbid.
class JsonBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  JsonBuilder(Json& root, const JsonLimits& limits) : Base(root, false), limits_(limits) {}

  bool start_object(std::size_t n) {
    keys_.emplace_back();
    return enter() && Base::start_object(n);
  }
  bool end_object() {
    --depth_;
    keys_.pop_back();
    return Base::end_object();
  }
  bool start_array(std::size_t n) { return enter() && Base::start_array(n); }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& key) {
    if (!keys_.back().insert(key).second) return refuse("duplicate key \"{}\"", key);
    if (keys_.back().size() > limits_.max_keys) return refuse("an object of more than {} keys", limits_.max_keys);
    return Base::key(key);
  }
  template <class Exception>
  bool parse_error(std::size_t position, const std::string&, const Exception& exception) {
    // The library's text after its "[json.exception…]" tag; it names line, column and what was expected.
    const std::string what = exception.what();
    const size_t tag = what.find("] ");
    return refuse("{} at byte {}", what.substr(tag == std::string::npos ? 0 : tag + 2), position);
  }

  std::string error;

 protected:
  /// Sets the error; returns false, which stops the parser.
  template <class... A>
  bool refuse(fmt::format_string<A...> format, A&&... args) {
    error = fmt::format(format, std::forward<A>(args)...);
    return false;
  }

 private:
  bool enter() { return ++depth_ <= limits_.max_depth || refuse("more than {} levels of nesting", limits_.max_depth); }

  JsonLimits limits_;
  int depth_ = 0;
  std::vector<std::set<std::string, std::less<>>> keys_;
};

}  // namespace nibble
