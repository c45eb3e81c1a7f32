#include "checkpoint/synthetic_tokenizer.h"

#include <string_view>

#include "checkpoint/tokenizer_form.h"
#include "text/byte_alphabet.h"

namespace nibble::checkpoint {
namespace {

struct AddedToken {
  std::string_view content;
  bool special;
};

constexpr int32_t kFirstAdded = kSyntheticEndOfText;

// The added tokens of the Qwen3.5 vocabulary, from id 248044 on.
constexpr AddedToken kAdded[] = {
    {"<|endoftext|>", true},      {"<|im_start|>", true},
    {"<|im_end|>", true},         {"<|object_ref_start|>", true},
    {"<|object_ref_end|>", true}, {"<|box_start|>", true},
    {"<|box_end|>", true},        {"<|quad_start|>", true},
    {"<|quad_end|>", true},       {"<|vision_start|>", true},
    {"<|vision_end|>", true},     {"<|vision_pad|>", true},
    {"<|image_pad|>", true},      {"<|video_pad|>", true},
    {"<tool_call>", false},       {"</tool_call>", false},
    {"<|fim_prefix|>", false},    {"<|fim_middle|>", false},
    {"<|fim_suffix|>", false},    {"<|fim_pad|>", false},
    {"<|repo_name|>", false},     {"<|file_sep|>", false},
    {"<tool_response>", false},   {"</tool_response>", false},
    {"<think>", false},           {"</think>", false},
    {"<|audio_start|>", true},    {"<|audio_end|>", true},
    {"<tts_pad>", true},          {"<tts_text_bos>", true},
    {"<tts_text_eod>", true},     {"<tts_text_bos_single>", true},
    {"<|audio_pad|>", true},
};
static_assert(kFirstAdded + std::size(kAdded) == kSyntheticIdLimit);

constexpr std::string_view kSplit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::string_view kChatTemplate =
    R"({%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
)";

Json added_token(const AddedToken& token) {
  return {{"content", token.content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},          {"normalized", false},  {"special", token.special}};
}

// A byte's id is its place in the byte alphabet: the printable bytes first, as in the released vocabulary.
Json byte_vocabulary() {
  const auto is_printable = [](int b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD); };
  Json vocabulary = Json::object();
  for (const bool printable : {true, false}) {
    for (int b = 0; b < 256; ++b) {
      if (is_printable(b) == printable) {
        vocabulary[text::letter_of_byte(static_cast<uint8_t>(b))] = vocabulary.size();
      }
    }
  }
  return vocabulary;
}

}  // namespace

Json synthetic_tokenizer_json() {
  Json added = Json::array(), vocabulary = byte_vocabulary();
  for (size_t i = 0; i < std::size(kAdded); ++i) {
    const auto id = kFirstAdded + static_cast<int32_t>(i);
    Json token = {{"id", id}};
    token.update(added_token(kAdded[i]));
    added.push_back(std::move(token));
    // Readers that number added tokens themselves find these ids here.
    vocabulary[std::string(kAdded[i].content)] = id;
  }
  Json tokenizer = byte_level_bpe_json(true, kSplit, std::move(added));
  tokenizer["post_processor"] = nullptr;
  tokenizer["model"]["vocab"] = std::move(vocabulary);
  tokenizer["model"]["merges"] = Json::array();
  return tokenizer;
}

Status write_synthetic_tokenizer(const Path& folder, int64_t max_positions) {
  Json decoder = Json::object();
  for (size_t i = 0; i < std::size(kAdded); ++i) {
    decoder[std::to_string(kFirstAdded + static_cast<int32_t>(i))] = added_token(kAdded[i]);
  }
  const Json config = {{"add_prefix_space", false},
                       {"added_tokens_decoder", std::move(decoder)},
                       {"clean_up_tokenization_spaces", false},
                       {"eos_token", "<|im_end|>"},
                       {"model_max_length", max_positions},
                       {"pad_token", "<|endoftext|>"},
                       {"tokenizer_class", "Qwen2Tokenizer"}};
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "tokenizer.json", synthetic_tokenizer_json().dump(1) + "\n"));
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "tokenizer_config.json", config.dump(2) + "\n"));
  return write_file(folder / "chat_template.jinja", kChatTemplate);
}

}  // namespace nibble::checkpoint
