// What must not reach a log.
#pragma once

#include <string>

#include "base/result.h"
#include "io/json.h"

namespace nibble::gate {

/// Replaces `secret` (where it is not empty) and whatever looks like an API key (sk-…, hf_…, ghp_…, Bearer …) by
/// "[key]" in every string of a document.
void redact_keys(Json& json, const std::string& secret);

/// Replaces every string under the keys of texts (content, reasoning, arguments, results, user, detail, snippet) by its
/// SHA-256: equal texts can still be seen to be equal.
void hash_texts(Json& json);

}  // namespace nibble::gate
