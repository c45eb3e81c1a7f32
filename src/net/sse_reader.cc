#include "net/sse_reader.h"

namespace nibble::net {

Status SseReader::feed(std::string_view bytes, const std::function<bool(const SseEvent&)>& on_event) {
  while (!bytes.empty() && !stopped_ && !failed_) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    if (part.size() > max_event_bytes_ - line_.size() - event_.data.size()) {
      failed_ = true;
      break;
    }
    line_ += part;
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  if (failed_) return corrupt("event stream: expected at most {} bytes in one event, got more", max_event_bytes_);
  return {};
}

void SseReader::end_line(const std::function<bool(const SseEvent&)>& on_event) {
  std::string_view line = line_;
  if (first_line_ && line.substr(0, 3) == "\xEF\xBB\xBF") line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    if (has_data_) stopped_ = !on_event(event_);
    event_ = {};
    has_data_ = false;
  } else if (line.front() != ':') {
    const size_t colon = line.find(':');
    std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    field(line.substr(0, colon), value);
  }
  line_.clear();
}

void SseReader::field(std::string_view name, std::string_view value) {
  if (name == "data") {
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (name == "event") {
    event_.name = value;
  }
}

}  // namespace nibble::net
