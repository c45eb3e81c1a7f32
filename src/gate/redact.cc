#include "gate/redact.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/sha256.h"
#include "text/pattern.h"

namespace nibble::gate {
namespace {

constexpr std::string_view kRedacted = "[key]";

const text::Pattern& key_pattern() {
  static const text::Pattern pattern = [] {
    auto compiled = text::Pattern::compile(
        R"(\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|\b(?:hf|ghp|gho|xox[bp])[_-][A-Za-z0-9-]{16,}|\bBearer\s+[A-Za-z0-9._~+/-]{16,})",
        "key pattern");
    NIBBLE_CHECK(compiled.ok());
    return std::move(compiled).value();
  }();
  return pattern;
}

std::string without_keys(std::string text, const std::string& secret) {
  for (size_t at = 0; !secret.empty() && (at = text.find(secret, at)) != std::string::npos; at += kRedacted.size()) {
    text.replace(at, secret.size(), kRedacted);
  }
  const auto matches = key_pattern().all_matches(text);
  if (!matches.ok()) return text;  // not UTF-8: no text of a model
  for (auto match = matches->rbegin(); match != matches->rend(); ++match) {
    const text::Span span = match->front();
    text.replace(span.begin, span.end - span.begin, kRedacted);
  }
  return text;
}

constexpr std::array<std::string_view, 7> kTextKeys = {"content", "reasoning", "arguments", "results",
                                                       "user",    "detail",    "snippet"};

void hash_all(Json& json) {
  if (json.is_string()) {
    if (!json.get_ref<const std::string&>().empty()) json = "sha256:" + sha256_of(json.get_ref<const std::string&>());
  } else if (json.is_structured()) {
    for (Json& item : json) hash_all(item);
  }
}

}  // namespace

void redact_keys(Json& json, const std::string& secret) {
  if (json.is_string()) {
    json = without_keys(json.get<std::string>(), secret);
  } else if (json.is_structured()) {
    for (Json& item : json) redact_keys(item, secret);
  }
}

void hash_texts(Json& json) {
  if (!json.is_structured()) return;
  for (auto item = json.begin(); item != json.end(); ++item) {
    const bool is_text =
        json.is_object() && std::find(kTextKeys.begin(), kTextKeys.end(), item.key()) != kTextKeys.end();
    if (is_text) {
      hash_all(*item);
    } else {
      hash_texts(*item);
    }
  }
}

}  // namespace nibble::gate
