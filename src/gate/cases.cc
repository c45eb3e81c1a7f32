#include "gate/cases.h"

#include <algorithm>
#include <map>
#include <set>

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxLineBytes = size_t{4} << 20;

// Reads fields of one JSON object; `where` is its path for messages, as "line 3: turns[0].expect".
class Object {
 public:
  static Result<Object> open(const Json& json, std::string where) {
    if (!json.is_object()) return corrupt("{}: expected an object, got {}", where, json.type_name());
    return Object(json, std::move(where));
  }

  const std::string& where() const { return where_; }
  bool has(const char* key) const { return json_->contains(key); }
  const Json& json() const { return *json_; }

  Result<std::string> text(const char* key) const {
    NIBBLE_TRY(value, get(key));
    if (!value->is_string()) return wrong(key, "a string", *value);
    return value->get<std::string>();
  }

  /// A list, each element made by `read(element)`, which returns false for a wrong one.
  template <class T, class Read>
  Result<std::vector<T>> list(const char* key, const char* expected, Read read) const {
    NIBBLE_TRY(value, get(key));
    if (!value->is_array()) return wrong(key, "a list", *value);
    std::vector<T> out;
    for (const Json& element : *value) {
      T item;
      if (!read(element, item)) return wrong(key, expected, element);
      out.push_back(std::move(item));
    }
    return out;
  }

  Result<const Json*> get(const char* key) const {
    const auto found = json_->find(key);
    if (found == json_->end()) return corrupt("{}: expected the field \"{}\", got none", where_, key);
    return &*found;
  }

  Status wrong(const char* key, const char* expected, const Json& got) const {
    return corrupt("{}.{}: expected {}, got {}", where_, key, expected, got.type_name());
  }

 private:
  Object(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}
  const Json* json_;
  std::string where_;
};

bool read_string(const Json& json, std::string& out) {
  if (json.is_string()) out = json.get<std::string>();
  return json.is_string();
}

// An argument to look for: a number or a boolean as JSON writes it; a string as it stands inside its quotes there.
bool read_argument(const Json& json, std::string& out) {
  if (json.is_structured() || json.is_null()) return false;
  out = json.dump();
  if (json.is_string()) out = out.substr(1, out.size() - 2);
  return true;
}

Result<Expectation> read_expectation(const Object& turn, bool needs_call) {
  NIBBLE_TRY(json, turn.get("expect"));
  NIBBLE_TRY(object, Object::open(*json, turn.where() + ".expect"));
  for (const auto& [key, value] : object.json().items()) {
    if (key != "must" && key != "tool" && key != "args") {
      return corrupt("{}: expected only must, tool and args, got \"{}\"", object.where(), key);
    }
  }
  Expectation expect;
  NIBBLE_TRY(must, object.list<std::string>("must", "strings", read_string));
  expect.must = std::move(must);
  if (needs_call) {
    NIBBLE_TRY(tool, object.text("tool"));
    NIBBLE_TRY(args, object.list<std::string>("args", "strings, numbers or booleans", read_argument));
    expect.tool = std::move(tool);
    expect.args = std::move(args);
  } else if (object.has("tool") || object.has("args")) {
    return corrupt("{}: expected no tool in a turn without tool_results, got one", object.where());
  } else if (expect.must.empty()) {
    return corrupt("{}.must: expected a string or a tool to look for, got nothing", object.where());
  }
  return expect;
}

Result<Turn> read_turn(const Json& json, std::string where) {
  NIBBLE_TRY(object, Object::open(json, std::move(where)));
  Turn turn;
  NIBBLE_TRY(user, object.text("user"));
  NIBBLE_TRY(results, object.list<std::string>("tool_results", "strings", read_string));
  NIBBLE_TRY(expect, read_expectation(object, !results.empty()));
  turn.user = std::move(user);
  turn.tool_results = std::move(results);
  turn.expect = std::move(expect);
  return turn;
}

Result<Case> read_case(const Json& json, const std::string& where) {
  NIBBLE_TRY(object, Object::open(json, where));
  Case c;
  NIBBLE_TRY(id, object.get("id"));
  if (!id->is_string() && !id->is_number_integer()) return object.wrong("id", "a string or an integer", *id);
  c.id = id->is_string() ? id->get<std::string>() : id->dump();
  NIBBLE_TRY(category, object.text("category"));
  c.category = std::move(category);
  if (object.has("system")) {
    NIBBLE_TRY(system, object.text("system"));
    c.system = std::move(system);
  }
  if (object.has("tools")) {
    NIBBLE_TRY(tools, object.get("tools"));
    if (!tools->is_array()) return object.wrong("tools", "a list", *tools);
    c.tools = *tools;
  }
  NIBBLE_TRY(turns, object.get("turns"));
  if (!turns->is_array() || turns->empty()) return object.wrong("turns", "a list with a turn", *turns);
  for (size_t i = 0; i < turns->size(); ++i) {
    NIBBLE_TRY(turn, read_turn((*turns)[i], fmt::format("{}.turns[{}]", where, i)));
    c.turns.push_back(std::move(turn));
  }
  return c;
}

}  // namespace

Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view name) {
  std::vector<Case> cases;
  std::set<std::string> ids;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", name, number);
    NIBBLE_TRY(json, parse_json(line, where, {.max_bytes = kMaxLineBytes}));
    NIBBLE_TRY(one, read_case(json, where));
    if (!ids.insert(one.id).second) return corrupt("{}: expected an id of its own, got \"{}\" again", where, one.id);
    cases.push_back(std::move(one));
  }
  if (cases.empty()) return corrupt("{}: expected a case a line, got none", name);
  return cases;
}

Result<std::vector<Case>> read_cases(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  return parse_cases(text, file.string());
}

std::vector<Case> stratified(std::vector<Case> cases, size_t count) {
  if (count >= cases.size()) return cases;
  struct Stratum {
    size_t cases = 0, quota = 0, remainder = 0;
  };
  std::vector<Stratum> strata;  // in the order in which categories appear
  std::map<std::string, size_t> index;
  for (const Case& one : cases) {
    const auto [at, added] = index.try_emplace(one.category, strata.size());
    if (added) strata.emplace_back();
    ++strata[at->second].cases;
  }
  size_t left = count;
  std::vector<Stratum*> by_remainder;
  for (Stratum& s : strata) {
    s.quota = count * s.cases / cases.size();
    s.remainder = count * s.cases % cases.size();
    left -= s.quota;
    by_remainder.push_back(&s);
  }
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [](const Stratum* a, const Stratum* b) { return a->remainder > b->remainder; });
  for (size_t i = 0; i < left; ++i) ++by_remainder[i]->quota;
  std::erase_if(cases, [&](const Case& one) {
    size_t& quota = strata[index[one.category]].quota;
    if (quota == 0) return true;
    --quota;
    return false;
  });
  return cases;
}

}  // namespace nibble::gate
