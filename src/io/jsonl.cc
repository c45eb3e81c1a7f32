#include "io/jsonl.h"

namespace nibble {

Status for_each_line(const Path& file, const std::function<Status(const TextLine& line)>& each) {
  NIBBLE_TRY(mapped, MappedFile::open(file));
  return for_each_line({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, each);
}

Status for_each_line(std::string_view text, const std::function<Status(const TextLine& line)>& each) {
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    NIBBLE_RETURN_IF_ERROR(each({line, number, end, text.size()}));
  }
  return {};
}

Status for_each_json_line(const Path& file, const std::function<Status(Json& object, int64_t line)>& each) {
  return for_each_line(file, [&](const TextLine& line) -> Status {
    const std::string where = fmt::format("{}:{}", file.string(), line.number);
    NIBBLE_TRY(object, parse_json(line.text, where));
    if (!object.is_object()) return corrupt("{}: expected a JSON object, got {}", where, object.type_name());
    return each(object, line.number);
  });
}

}  // namespace nibble
