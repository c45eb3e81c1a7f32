// The tokenizer, chat template and sampling defaults of a model in the metadata of a GGUF file.
//
//   tokenizer.ggml.model "gpt2", .pre "qwen35" (or "qwen2"): byte-level BPE under a Split pattern that the name stands
//   for. .tokens in the alphabet of byte_alphabet.h, added tokens as they are written, ids without a token "[PADn]";
//   .token_type 1 plain, 3 control, 4 added but text, 5 unused; .merges "left right" by rank; .eos_token_id,
//   .eot_token_id, .padding_token_id, .bos_token_id, .add_bos_token false. tokenizer.chat_template.
//   general.sampling.{temp,top_k,top_p,min_p,penalty_repeat}
// Of nibble's own: nibble.tokenizer.nfc, nibble.stop_ids (i32).
//
// llama.cpp does not compose text to NFC before it cuts words, Qwen3.5's own tokenizer does; the format has no key for
// it. nibble composes where the file does not say otherwise, so texts that are not in NFC get other ids there.
#pragma once

#include <optional>

#include "checkpoint/generation.h"
#include "io/gguf_writer.h"
#include "model/config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace nibble::checkpoint {

/// Of a checkpoint folder; says whether its tokenizer composes to NFC. `unsupported` for a tokenizer that llama.cpp has
/// no name for.
Result<bool> add_text(const Path& folder, const model::Config& config, const Generation& generation,
                      GgufMetadata& metadata);

/// The tokenizer of the file, as tokenizer.json would hold it.
Result<text::TokenizerJson> gguf_tokenizer_json(const Gguf& file);
/// What tokenizer_config.json would say: {"eos_token": …, "pad_token": …}, as far as the file does.
Result<Json> gguf_tokenizer_config(const Gguf& file);
/// Stop ids: eos, eot, those nibble wrote, and the control tokens <|im_end|> and <|endoftext|>, as llama.cpp has it.
Result<Generation> gguf_generation(const Gguf& file);

struct GgufText {
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
  bool nfc = true;  // the tokenizer composes, and llama.cpp would not
};

/// `not_found` where the file has no chat template.
Result<GgufText> read_gguf_text(const Path& file);

}  // namespace nibble::checkpoint
