// assistant_spans(): the assistant's own text, found by provenance.
#include <algorithm>

#include "text/chat_template.h"

namespace nibble::text {
namespace {

constexpr std::string_view kHeader = "<|im_start|>assistant\n";
constexpr std::string_view kEnd = "<|im_end|>";

// Consecutive pieces of one turn.
struct Stretch {
  size_t first, last;  // indices into pieces, inclusive
};

// Whether bytes [begin, end) were written by the template; the name of the role counts as its text.
bool is_template_text(const Rendered& r, const Stretch& stretch, size_t begin, size_t end) {
  for (size_t i = stretch.first; i <= stretch.last; ++i) {
    const Piece& piece = r.pieces[i];
    const bool overlaps = piece.begin < end && piece.end > begin;
    if (overlaps && piece.field != Field::literal && piece.field != Field::role) return false;
  }
  return true;
}

bool find_span(const Rendered& r, const Stretch& stretch, AssistantSpan& span) {
  const size_t begin = r.pieces[stretch.first].begin, end = r.pieces[stretch.last].end;
  const std::string_view text = std::string_view(r.text).substr(0, end);
  size_t header = text.find(kHeader, begin);
  while (header != std::string_view::npos && !is_template_text(r, stretch, header, header + kHeader.size())) {
    header = text.find(kHeader, header + 1);
  }
  if (header == std::string_view::npos) return false;
  const size_t body = header + kHeader.size();
  size_t close = text.rfind(kEnd);
  while (close != std::string_view::npos && close >= body &&
         !is_template_text(r, stretch, close, close + kEnd.size())) {
    close = text.rfind(kEnd, close - 1);
  }
  if (close == std::string_view::npos || close < body) return false;
  span.begin = header;
  span.body = body;
  span.end = close + kEnd.size();
  return true;
}

bool is_assistant(const Rendered& r, int message) {
  return message >= 0 && static_cast<size_t>(message) < r.roles.size() &&
         r.roles[static_cast<size_t>(message)] == "assistant";
}

// Each stretch of text inside generation blocks; its header is what the template wrote for that message before it.
std::vector<AssistantSpan> generation_spans(const Rendered& r) {
  std::vector<AssistantSpan> spans;
  for (size_t i = 0; i < r.pieces.size(); ++i) {
    const Piece& piece = r.pieces[i];
    if (!piece.generation || !is_assistant(r, piece.turn)) continue;
    if (!spans.empty() && spans.back().message == piece.turn && spans.back().end == piece.begin) {
      spans.back().end = piece.end;
      continue;
    }
    size_t begin = piece.begin;
    for (size_t j = i; j > 0 && r.pieces[j - 1].turn == piece.turn && !r.pieces[j - 1].generation; --j) {
      begin = r.pieces[j - 1].begin;
    }
    spans.push_back({piece.turn, begin, piece.begin, piece.end});
  }
  return spans;
}

}  // namespace

std::vector<AssistantSpan> assistant_spans(const Rendered& rendered) {
  const auto& pieces = rendered.pieces;
  if (std::any_of(pieces.begin(), pieces.end(), [](const Piece& p) { return p.generation; })) {
    return generation_spans(rendered);
  }
  std::vector<AssistantSpan> spans;
  for (size_t first = 0; first < pieces.size();) {
    size_t last = first;
    while (last + 1 < pieces.size() && pieces[last + 1].turn == pieces[first].turn) ++last;
    AssistantSpan span{pieces[first].turn, 0, 0, 0};
    if (is_assistant(rendered, span.message) && find_span(rendered, {first, last}, span)) spans.push_back(span);
    first = last + 1;
  }
  return spans;
}

}  // namespace nibble::text
