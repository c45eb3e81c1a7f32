#include "checkpoint/fused_linears.h"

#include <utility>

namespace nibble::checkpoint {
namespace {

constexpr std::pair<std::string_view, std::string_view> kParts[] = {
    {"q_proj", "qkv_proj"},        {"k_proj", "qkv_proj"},      {"v_proj", "qkv_proj"},
    {"gate_proj", "gate_up_proj"}, {"up_proj", "gate_up_proj"}, {"in_proj_qkv", "in_proj_qkvz"},
    {"in_proj_z", "in_proj_qkvz"}, {"in_proj_b", "in_proj_ba"}, {"in_proj_a", "in_proj_ba"},
};

}  // namespace

std::string fused_module(std::string_view module) {
  const size_t dot = module.rfind('.');
  const size_t begin = dot == std::string_view::npos ? 0 : dot + 1;
  for (const auto& [part, whole] : kParts) {
    if (module.substr(begin) == part) return std::string(module.substr(0, begin)).append(whole);
  }
  return std::string(module);
}

}  // namespace nibble::checkpoint
