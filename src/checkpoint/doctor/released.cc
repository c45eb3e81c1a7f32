#include "checkpoint/doctor/released.h"

namespace nibble::checkpoint::doctor {
namespace {

struct Vision {
  int64_t text_hidden, depth, hidden, intermediate, heads;
};
// Source: the vision_config of Qwen/Qwen3.5-0.8B … 27B; 2B and 4B as given in LlamaFactory #10539.
constexpr Vision kVisions[] = {{1024, 12, 768, 3072, 12},
                               {2048, 24, 1024, 4096, 16},
                               {2560, 24, 1024, 4096, 16},
                               {4096, 27, 1152, 4304, 16},
                               {5120, 27, 1152, 4304, 16}};

}  // namespace

// Source: tokenizer.json of Qwen3.5 and of Qwen2 (transformers, Qwen2Tokenizer).
const char* const kFamilyPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::optional<int64_t> known_token_id(const Folder& folder, const SpecialToken& token) {
  if (folder.tokenizer()) {
    const auto found = folder.tokenizer()->added.find(token.content);
    if (found != folder.tokenizer()->added.end()) return found->second;
  }
  const Json* vocab = find_value(folder.text_config(), "vocab_size");
  if (vocab != nullptr && *vocab == kReleasedVocab) return token.id;
  return {};
}

int64_t token_id(const Folder& folder, const SpecialToken& token) {
  return known_token_id(folder, token).value_or(token.id);
}

Json released_rope(int64_t head_dim) {
  const int64_t pairs = head_dim / 8, first = (pairs + 2) / 3, second = (pairs - first + 1) / 2;
  return {{"mrope_interleaved", true},
          {"mrope_section", {first, second, pairs - first - second}},
          {"rope_type", "default"},
          {"rope_theta", 10000000},
          {"partial_rotary_factor", 0.25}};
}

Json released_vision_config(int64_t hidden) {
  const Vision* vision = &kVisions[0];
  for (const Vision& one : kVisions) {
    if (one.text_hidden == hidden) vision = &one;
  }
  return {{"deepstack_visual_indexes", Json::array()},
          {"depth", vision->depth},
          {"hidden_act", "gelu_pytorch_tanh"},
          {"hidden_size", vision->hidden},
          {"in_channels", 3},
          {"initializer_range", 0.02},
          {"intermediate_size", vision->intermediate},
          {"model_type", "qwen3_5"},
          {"num_heads", vision->heads},
          {"num_position_embeddings", 2304},
          {"out_hidden_size", hidden},
          {"patch_size", 16},
          {"spatial_merge_size", 2},
          {"temporal_patch_size", 2}};
}

// Source: preprocessor_config.json and video_preprocessor_config.json of the released models.
Json released_preprocessor() {
  return {{"size", {{"longest_edge", 16777216}, {"shortest_edge", 65536}}},
          {"patch_size", 16},
          {"temporal_patch_size", 2},
          {"merge_size", 2},
          {"image_mean", {0.5, 0.5, 0.5}},
          {"image_std", {0.5, 0.5, 0.5}},
          {"processor_class", "Qwen3VLProcessor"},
          {"image_processor_type", "Qwen2VLImageProcessorFast"}};
}

Json released_video_preprocessor() {
  Json json = released_preprocessor();
  json["size"] = {{"longest_edge", 25165824}, {"shortest_edge", 4096}};
  json.erase("image_processor_type");
  json["video_processor_type"] = "Qwen3VLVideoProcessor";
  return json;
}

}  // namespace nibble::checkpoint::doctor
