// The parts of one assistant message in a rendered conversation, by provenance.
#pragma once

#include <optional>
#include <vector>

#include "text/chat_template.h"

namespace nibble::train {

struct ByteRange {
  size_t begin, end;

  bool operator==(const ByteRange&) const = default;
};

///   [body, content_begin)         the think block with the line breaks after it; nothing where there is none
///   [content_begin, calls_begin)  content
///   [calls_begin, eos_begin)      tool calls with their separators
///   [eos_begin, end)              "<|im_end|>", or nothing where a generation block ends before it
struct TurnRegions {
  size_t body, content_begin, calls_begin, eos_begin, end;
  bool think_is_empty = false;
  std::vector<ByteRange> more;  // further generation blocks of the same message
};

/// Nothing where `spans`, the assistant_spans of this text, have none for the message.
std::optional<TurnRegions> turn_regions(const text::Rendered& rendered, const std::vector<text::AssistantSpan>& spans,
                                        int message);

}  // namespace nibble::train
