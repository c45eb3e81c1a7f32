// Sites: the four places of a layer where linears read. Linears at one site see the same input, so they share its
// statistics; one group of them, those that servers fuse, shares a tensor scale too.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "model/weights.h"

namespace nibble::quantize {

enum class SiteKind : uint8_t {
  mixer_in,   // q, k, v, or in_proj_qkv, _z, _b, _a
  mixer_out,  // o_proj or out_proj
  mlp_in,     // gate, up
  mlp_out,    // down
};
constexpr int kSites = 4;

struct Reader {
  std::string module;  // "model.layers.3.self_attn.q_proj"
  ops::Linear* linear;
};

/// The readers of each site of a block, by kind, in the order of the tensor table. `prefix` is that of the layer's
/// names, "model.layers.3.". The pointers go into `block`.
std::array<std::vector<Reader>, kSites> sites_of(const model::Config& config, const std::string& prefix,
                                                 model::BlockWeights& block);

}  // namespace nibble::quantize
