// Reads a streamed chat completion: SSE events in, one message with its times out.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"

namespace nibble::gate {

/// Takes the data of the events in order. Any bytes are safe; what is not the API's is `corrupt`, and an error that the
/// server reports inside the stream is a Status, too: `unavailable` before the first token, `io` after it.
///
/// Rules of a stream whose breach is noted, not refused (disorder): the first delta names the role assistant; content
/// does not come after finish_reason; indices of calls count 0, 1, 2, …; a call's name comes once, with its id; a
/// finish_reason comes exactly once; usage comes after it; [DONE] ends the stream.
class ChatStream {
 public:
  /// `at_ms` is the time of arrival, on the scale of ReplyTimes.
  Status take(std::string_view data, double at_ms);

  /// After the last event. `io` when the stream ended before a finish_reason.
  Status end();

  /// Whether the answer, or reasoning before it, has begun.
  bool begun() const { return out_.times.first_chunk_ms >= 0; }
  bool done() const { return done_; }
  StreamedReply& reply() { return out_; }

 private:
  Status choice(const Json& choice, double at_ms);
  Status calls(const Json& calls);
  void note(std::string rule);

  StreamedReply out_;
  bool done_ = false, role_seen_ = false;
};

/// The member of an object, or null where there is none.
const Json& member(const Json& json, const char* key);

/// The compact text of a JSON value; bytes that are not UTF-8 are replaced.
std::string dump(const Json& json);

}  // namespace nibble::gate
