#include "io/json.h"

#include <set>
#include <string>
#include <vector>

namespace nibble {
namespace {

// Builds the document through nlohmann's own DOM builder and stops at what the limits forbid.
class BoundedBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  BoundedBuilder(Json& root, int max_depth) : Base(root, false), max_depth_(max_depth) {}

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
    if (!keys_.back().insert(key).second) {
      error = fmt::format("duplicate key \"{}\"", key);
      return false;
    }
    return Base::key(key);
  }
  template <class Exception>
  bool parse_error(std::size_t position, const std::string&, const Exception& exception) {
    // The library's text after its "[json.exception…]" tag; it names line, column and what was expected.
    const std::string what = exception.what();
    error = fmt::format("{} at byte {}", what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2),
                        position);
    return false;
  }

  std::string error;

 private:
  bool enter() {
    if (++depth_ <= max_depth_) return true;
    error = fmt::format("more than {} levels of nesting", max_depth_);
    return false;
  }

  int max_depth_, depth_ = 0;
  std::vector<std::set<std::string, std::less<>>> keys_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return corrupt("{}: expected at most {} bytes of JSON, got {}", what, limits.max_bytes, text.size());
  }
  Json root;
  BoundedBuilder builder(root, limits.max_depth);
  if (!Json::sax_parse(text, &builder)) return corrupt("{}: expected valid JSON, got {}", what, builder.error);
  return root;
}

}  // namespace nibble
