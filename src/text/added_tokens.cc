#include "text/added_tokens.h"

#include "base/check.h"

namespace nibble::text {
namespace {

uint64_t edge(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

AddedTokenTrie::AddedTokenTrie(const std::vector<AddedToken>& tokens) : ids_{-1} {
  for (const AddedToken& token : tokens) {
    NIBBLE_CHECK(!token.content.empty());
    begins_[static_cast<uint8_t>(token.content[0])] = true;
    uint32_t node = 0;
    for (const char byte : token.content) {
      const auto [found, added] = edges_.emplace(edge(node, byte), static_cast<uint32_t>(ids_.size()));
      if (added) ids_.push_back(-1);
      node = found->second;
    }
    NIBBLE_CHECK(ids_[node] < 0);
    ids_[node] = token.id;
  }
}

std::optional<uint32_t> AddedTokenTrie::child(uint32_t node, char byte) const {
  const auto found = edges_.find(edge(node, byte));
  if (found == edges_.end()) return std::nullopt;
  return found->second;
}

AddedTokenTrie::Match AddedTokenTrie::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<uint8_t>(text[at])]) continue;
    Match longest = {at, 0, -1};
    std::optional<uint32_t> node = 0;
    for (size_t i = at; i < text.size() && (node = child(*node, text[i])); ++i) {
      if (ids_[*node] >= 0) longest = {at, i + 1 - at, ids_[*node]};
    }
    if (longest.size > 0) return longest;
  }
  return {text.size(), 0, -1};
}

std::optional<int32_t> AddedTokenTrie::id(std::string_view content) const {
  std::optional<uint32_t> node = 0;
  for (const char byte : content) {
    if (!(node = child(*node, byte))) return std::nullopt;
  }
  if (ids_[*node] < 0) return std::nullopt;
  return ids_[*node];
}

}  // namespace nibble::text
