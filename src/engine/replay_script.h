// A replay script: what a server without a model replies. One JSON object a line:
//
//   {"match": {"contains": "weather", "index": 0}, "times": 1,
//    "chunks": [{"text": "It is ", "delay_ms": 50}, {"text": "sunny."}], "finish": "stop"}
//
//   match      which requests the entry answers; all that stands in it must hold, and without it every request does
//     contains   a text, or an array of texts that all occur in the rendered prompt
//     index      which request it is, counted from 0
//   times      how often the entry answers before it is passed over; without it, always
//   chunks     what is generated, in pieces; `delay_ms` (0) is the silence before a piece. The text is what a model
//              would write, with <think> and <tool_call> as it would write them. An empty text is silence alone
//   finish     "stop" (the default), "length", or "error": the engine fails after the chunks
//   refuse     true, instead of chunks and finish: the queue is full
//
// The first entry that matches answers. Blank lines are skipped; an unknown key is an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "engine/engine.h"

namespace nibble::engine {

struct ReplayChunk {
  std::string text;
  int64_t delay_ms = 0;
};

struct ReplayEntry {
  int64_t line = 0;                   // where it stands, from 1
  std::vector<std::string> contains;  // none empty
  std::optional<int64_t> index;
  std::optional<int64_t> times;  // at least 1
  bool refuse = false;
  std::vector<ReplayChunk> chunks;
  Finish finish = Finish::stop;  // stop, length or error
};

struct ReplayScript {
  std::string name;  // of the file
  std::vector<ReplayEntry> entries;
  std::string fingerprint;  // 8 hex digits over the text
};

/// At least one entry and at most 10,000, lines of at most 4 MiB, delays of at most ten minutes. `corrupt` for anything
/// else, with name, line and field: "talk.jsonl:3: chunks[0]: delay_ms: expected …, got …".
Result<ReplayScript> parse_replay(std::string_view text, std::string name);

/// The same of a file of at most 64 MiB.
Result<ReplayScript> read_replay(const Path& file);

}  // namespace nibble::engine
