// Recipes: what a quantization does, as data. The files of recipes/quant are compiled into the binary; files of the
// same form can be given by path. recipes/quant/schema.json describes the form.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/module_format.h"
#include "io/json.h"

namespace nibble::quantize {

using checkpoint::Format;
using checkpoint::Inputs;

/// How the block scales of NVFP4 weights are chosen.
enum class Scales : uint8_t { max, four_over_six, mse, local_hessian };
/// What happens to the weights before.
enum class Transform : uint8_t { none, awq_lite, awq_clip, svdquant };
/// How weights become codes.
enum class Rounding : uint8_t { nearest, gptq, signround };

/// Later rules win. `match` is a pattern of checkpoint/name_pattern.h over tensor and module names.
struct Rule {
  std::string match;
  Format format = Format::nvfp4;
  Inputs inputs = Inputs::a16;
  int64_t last_layers = 0;  // > 0: the rule holds only for that many layers at the end of the stack
  bool operator==(const Rule&) const = default;
};

struct Recipe {
  std::string name, title;  // title: one line, what it is for
  std::vector<Rule> rules;
  Scales scales = Scales::max;
  Transform transform = Transform::none;
  Rounding rounding = Rounding::nearest;
  bool act_order = false;  // gptq: columns by falling importance; the file is the same plain NVFP4
  double damping = 0.05;   // gptq: of the mean diagonal
  int64_t rank = 32;       // svdquant
  bool fp8_kv = false;     // the config asks servers for an FP8 cache; no scales are stored
  bool untie = false;      // a tied head may become a tensor of its own
  /// auto_mixed: the average bits of a weight that a search over formats may spend.
  std::optional<double> effective_bits;

  bool operator==(const Recipe&) const = default;
  /// Whether a rule names the output head.
  bool quantizes_head() const;
  /// Whether it can run only with calibration data: static input scales, statistics of the inputs, or a search.
  bool needs_calibration() const;
};

/// All linears of the main stack in NVFP4, and nothing else.
Recipe uniform_recipe(Scales scales, Inputs inputs);

/// `corrupt` for a key, word, type or range that a recipe does not have, naming it and what was expected.
Result<Recipe> parse_recipe(const Json& json, std::string_view where);
/// The recipe in full, defaults included; parse_recipe gives it back.
Json recipe_json(const Recipe& recipe);

/// The recipes in the binary, in the order of recipe_list().
const std::vector<Recipe>& recipes();
/// By name, or else from a file. `not_found` lists the names.
Result<Recipe> find_recipe(const std::string& name_or_file);
/// A line for each.
std::string recipe_list();

/// What auto_mixed may spend: at most one of these is set.
struct Budget {
  std::optional<double> effective_bits;  // of a quantizable weight, on average
  std::optional<uint64_t> max_bytes;     // of the file
  std::optional<double> min_tok_s;       // decoded tokens per second, if reading the weights is all that takes time
  double bytes_per_second = 0;           // with min_tok_s: what the machine's memory gives

  bool set() const { return effective_bits || max_bytes || min_tok_s; }
};

}  // namespace nibble::quantize
