// Finding out what a chat template can do.
#pragma once

#include "text/chat_template.h"

namespace nibble::text {

/// Renders a handful of two-message conversations. Total: a template that fails on all of them has no traits.
TemplateTraits probe(const ChatTemplate& chat);

}  // namespace nibble::text
