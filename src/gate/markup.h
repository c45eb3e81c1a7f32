// Foreign text inside XML and HTML. Whatever a model wrote, the document stays well-formed and the text stays text.
#pragma once

#include <string>
#include <string_view>

#include "io/json.h"

namespace nibble::gate {

/// As text between tags or in a quoted attribute of XML 1.0 or HTML: broken UTF-8 becomes U+FFFD, a control character
/// its picture (U+2400 …), a character that XML forbids U+FFFD, and & < > " ' are replaced. Tab and newline stay.
std::string markup_text(std::string_view text);

/// <script type="application/json" ATTRIBUTES>…</script>. No "<" is left in the JSON, so nothing in it ends the block.
std::string data_block(std::string_view attributes, const Json& json);

/// What a Content-Security-Policy calls an inline script: sha256- and the hash of its text in base64.
std::string csp_source(std::string_view script);

}  // namespace nibble::gate
