// Patterns over names of tensors and modules, as people write them in --exclude and in recipes.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::checkpoint {

/// '*' stands for any characters, dots included; the whole name must match. Costs at most pattern x name.
bool glob(std::string_view pattern, std::string_view name);

/// A pattern with a leading '*' is a glob over the whole name. Any other may begin at the name's start or after any
/// dot, and must then match the whole rest or a run of its dot-separated parts: "linear_attn" and "layers.0.*" match
/// "model.layers.0.linear_attn.out_proj", "layers.0" does so too, "attn" and "layers.1.*" do not.
/// "model.language_model." and "model." count as the same prefix. An empty pattern matches nothing.
bool matches_name(std::string_view pattern, std::string_view name);

/// Whether the pattern spells out the last component of the module: "*linear_attn.in_proj_a" names that module,
/// "linear_attn" and "*" only match it.
bool spells_module(std::string_view pattern, std::string_view module);

/// What the writer of a pattern may have meant: up to `count` runs of components of the names, as long as the pattern
/// has components, those first whose components are nearest by edits for their length. For "mlp.gate" that is
/// "mlp.gate_proj". For error messages.
std::vector<std::string> nearest_names(std::string_view pattern, std::span<const std::string> names, size_t count = 3);

}  // namespace nibble::checkpoint
