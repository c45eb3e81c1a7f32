// Server-sent events as a stream of bytes brings them (WHATWG HTML, "Server-sent events", section 9.2.6).
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nibble::net {

struct SseEvent {
  std::string name;  // the `event` field; empty for the unnamed events of chat APIs
  std::string data;  // the `data` lines, joined by \n
};

/// Incremental and total: any bytes in any chunking give the same events, and nothing but the size limit is an error.
/// Lines end with LF, CR or CRLF; comments, unknown fields, `id` and `retry` are skipped; a leading byte order mark is
/// skipped; an event without its closing blank line is never delivered. Not thread-safe.
class SseReader {
 public:
  /// `max_event_bytes` bounds the memory held between two events: the lines of one event together.
  explicit SseReader(size_t max_event_bytes = size_t{16} << 20) : max_event_bytes_(max_event_bytes) {}

  /// Calls on_event for each event that these bytes complete; when it returns false the rest of the stream is ignored.
  /// `corrupt` when an event passes the limit; the reader then stays in that error.
  Status feed(std::string_view bytes, const std::function<bool(const SseEvent&)>& on_event);

  /// True once on_event has returned false.
  bool stopped() const { return stopped_; }

 private:
  void end_line(const std::function<bool(const SseEvent&)>& on_event);
  void field(std::string_view name, std::string_view value);

  size_t max_event_bytes_;
  std::string line_;
  SseEvent event_;
  bool has_data_ = false;
  bool first_line_ = true;
  bool after_cr_ = false;  // a LF that comes next belongs to the CR before it
  bool stopped_ = false;
  bool failed_ = false;
};

}  // namespace nibble::net
