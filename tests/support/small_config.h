// A Qwen3.5 of four layers, small enough to count its weights by hand.
#pragma once

#include "model/config.h"

namespace nibble::test {

/// The kinds of layers of `of`, a built-in config.
inline model::Config small_config(std::string_view of, bool tied) {
  model::Config c = *model::builtin_config(of);
  c.hidden = 32;
  c.intermediate = 48;
  c.layers = 4;
  c.layer_types.resize(4);
  c.heads = c.kv_heads = c.key_heads = 1;
  c.value_heads = 2;
  c.head_dim = c.key_head_dim = c.value_head_dim = 16;
  c.rotary_dim = 4;
  c.tie_embeddings = tied;
  return c;
}

}  // namespace nibble::test
