// Which linears a server loads as one matrix. They share a format, a tensor scale and an input scale, because vLLM and
// SGLang give the fused matrix one of each.
#pragma once

#include <string>
#include <string_view>

namespace nibble::checkpoint {

/// The module that `module` becomes a part of: q_proj, k_proj, v_proj -> qkv_proj; gate_proj, up_proj -> gate_up_proj;
/// in_proj_qkv, in_proj_z -> in_proj_qkvz; in_proj_b, in_proj_a -> in_proj_ba (vLLM's names). The path before the last
/// component stays: "model.layers.3.self_attn.k_proj" -> "model.layers.3.self_attn.qkv_proj". Any other module is
/// returned as it is.
std::string fused_module(std::string_view module);

}  // namespace nibble::checkpoint
