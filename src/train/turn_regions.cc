#include "train/turn_regions.h"

#include <algorithm>

namespace nibble::train {
namespace {

using text::Field;
using text::Piece;

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>", kEnd = "<|im_end|>";

bool is_literal(const text::Rendered& rendered, size_t begin, size_t end) {
  return std::all_of(rendered.pieces.begin(), rendered.pieces.end(), [&](const Piece& piece) {
    return piece.end <= begin || piece.begin >= end || piece.field == Field::literal;
  });
}

}  // namespace

std::optional<TurnRegions> turn_regions(const text::Rendered& rendered, const std::vector<text::AssistantSpan>& spans,
                                        int message) {
  std::optional<TurnRegions> found;
  for (const text::AssistantSpan& span : spans) {
    if (span.message != message) continue;
    if (found.has_value()) {
      found->more.push_back({span.body, span.end});
      continue;
    }
    found.emplace(TurnRegions{span.body, span.body, span.end, span.end, span.end, false, {}});
  }
  if (!found.has_value()) return found;
  TurnRegions& r = *found;
  const std::string_view all = std::string_view(rendered.text).substr(0, r.end);
  if (r.end - r.body >= kEnd.size() && all.ends_with(kEnd) && is_literal(rendered, r.end - kEnd.size(), r.end)) {
    r.eos_begin = r.end - kEnd.size();
  }

  size_t words = r.eos_begin, words_end = r.body, calls = r.eos_begin;  // the first and the last of content, a call
  for (const Piece& piece : rendered.pieces) {
    if (piece.begin < r.body || piece.end > r.end || piece.message != message) continue;
    if (piece.field == Field::content) {
      words = std::min(words, piece.begin);
      words_end = std::max(words_end, piece.end);
    } else if (piece.field == Field::tool_calls) {
      calls = std::min(calls, piece.begin);
    }
  }
  const size_t limit = std::min(words, calls);
  for (size_t close = all.find(kThinkEnd, r.body); close < limit; close = all.find(kThinkEnd, close + 1)) {
    if (!is_literal(rendered, close, close + kThinkEnd.size())) continue;
    std::string_view inner = all.substr(r.body, close - r.body);
    if (inner.starts_with(kThink)) inner.remove_prefix(kThink.size());
    r.think_is_empty = inner.find_first_not_of(" \t\r\n") == std::string_view::npos;
    r.content_begin = close + kThinkEnd.size();
    while (r.content_begin < limit && all[r.content_begin] == '\n') ++r.content_begin;
    break;
  }
  r.calls_begin = calls < r.eos_begin ? std::max(r.content_begin, words_end) : r.eos_begin;
  return found;
}

}  // namespace nibble::train
