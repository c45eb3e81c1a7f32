// SseWriter: a stream of server-sent events over an Exchange. Used on the io thread only, but for start().
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "io/json.h"
#include "serve/errors.h"
#include "serve/http_types.h"

namespace nibble::serve {

/// "data: JSON\n\n".
std::string sse_event(const Json& json);

class SseWriter : public std::enable_shared_from_this<SseWriter> {
 public:
  SseWriter(std::shared_ptr<Exchange> exchange, double ping_s);

  /// Opens the stream after `seconds` if nothing else has; from then on silence of `ping_s` sends a comment, so that
  /// neither client nor proxy takes a long prefill for a dead server.
  void start(double open_after_s);

  /// Sends status and headers now, if they have not been sent.
  void open();
  /// Sends whole events, as sse_event makes them, in one piece.
  void send(std::string events);
  /// Sends `[DONE]` and ends the stream.
  void done();
  /// Before the stream is open: an ordinary error response. After: an event with the error, and the end.
  void fail(const ApiError& error);

 private:
  void watch();

  const std::shared_ptr<Exchange> exchange_;
  const double ping_s_;
  double last_write_s_ = 0;
  bool open_ = false, ended_ = false;
};

}  // namespace nibble::serve
