// The files of recipes/quant, as they were when nibble was built.
#pragma once

#include "base/embedded_file.h"

namespace nibble::quantize {

/// In the order of `nibble quantize --recipe list`.
std::span<const EmbeddedFile> recipe_files();

}  // namespace nibble::quantize
