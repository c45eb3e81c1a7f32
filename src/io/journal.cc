#include "io/journal.h"

#include <fstream>

namespace nibble {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Status check_header(const Json& found, const Json& wanted, const Path& path) {
  for (const auto& item : wanted.items()) {
    const auto other = found.is_object() ? found.find(item.key()) : found.end();
    if (found.is_object() && other != found.end() && *other == item.value()) continue;
    const std::string got = found.is_object() && other != found.end() ? other->dump() : "none";
    return invalid_argument("resume: expected {} {}, got {} ({})", item.key(), item.value().dump().substr(0, 100),
                            got.substr(0, 100), path.string())
        .with_hint("the file was begun with other settings; name another output to start anew");
  }
  return {};
}

}  // namespace

Result<Journal> Journal::open(const Path& path, const Json& header, Mode mode,
                              const std::function<Status(const Json&, uint64_t)>& each) {
  std::error_code ignored;
  const bool there = std::filesystem::exists(path, ignored) && std::filesystem::file_size(path, ignored) > 0;
  if (there && mode == Mode::fresh) {
    return invalid_argument("output: expected a new file, got one that is there ({})", path.string())
        .with_hint("--resume goes on with it");
  }
  NIBBLE_TRY(file, AppendFile::open(path));
  NIBBLE_RETURN_IF_ERROR(file.lock());
  uint64_t whole = 0;  // bytes of complete lines
  if (there) {
    std::ifstream in(path, std::ios::binary);
    std::string line;
    while (std::getline(in, line) && !in.eof()) {  // a last line without its newline was torn
      if (line.size() > kMaxLineBytes)
        return corrupt("{}: expected lines of at most {} bytes", path.string(), kMaxLineBytes);
      NIBBLE_TRY(json, parse_json(line, fmt::format("{}: at byte {}", path.string(), whole)));
      if (whole == 0) {
        NIBBLE_RETURN_IF_ERROR(check_header(json, header, path));
      } else if (each) {
        NIBBLE_RETURN_IF_ERROR(each(json, whole));
      }
      whole += line.size() + 1;
    }
    NIBBLE_RETURN_IF_ERROR(file.truncate(whole));
  }
  Journal journal(path, std::move(file), whole);
  if (whole == 0) NIBBLE_RETURN_IF_ERROR(journal.append(header).status());
  return journal;
}

Result<uint64_t> Journal::append(const Json& line) {
  const std::string text = line_of(line);
  const std::lock_guard lock(*mutex_);
  NIBBLE_RETURN_IF_ERROR(file_.write(text));
  NIBBLE_RETURN_IF_ERROR(file_.sync());
  const uint64_t offset = size_;
  size_ += text.size();
  return offset;
}

Result<Json> Journal::read(uint64_t offset) const {
  std::ifstream in(path_, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  std::string line;
  if (!std::getline(in, line)) return io("read: expected a line at byte {} ({})", offset, path_.string());
  return parse_json(line, path_.string());
}

}  // namespace nibble
