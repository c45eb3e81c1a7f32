// The files of a checkpoint folder that hold no weights.
#pragma once

#include "base/file.h"

namespace nibble::quantize {

/// Copies them byte for byte from `source` to `target`, which exists: tokenizer, templates, generation config,
/// preprocessor, model card. Left out are weights in any format, the index of shards, training state, hidden files, and
/// config.json and hf_quant_config.json, which the exporter writes. Of subfolders only additional_chat_templates is
/// copied, the one that transformers reads.
Status copy_other_files(const Path& source, const Path& target);

}  // namespace nibble::quantize
