// From a record to what a model is trained on: ids, and which of them it has to learn to say.
//
// The text comes from the checkpoint's own chat template, through the renderer of the server, and the mask from the
// provenance that the renderer keeps: what the template wrote for an assistant message, whatever others typed. Of an
// assistant message
//
//   <|im_start|>assistant\n  <think>…</think>\n\n  content  <tool_call>…</tool_call>  <|im_end|>
//   header: never            think                 content  tool_call                 eos
//
// the model learns what it will have to write itself: from the end of the prompt that the server will send for this
// turn (prompt identity, checked token by token) to <|im_end|>. In a template with {% generation %} blocks, from there
// to the end of the block.
//
// Where a template rewrites history (the official ones drop earlier reasoning), one rendering cannot be right for all
// turns. Then a record gives several samples: each turn is trained exactly once, in the longest rendering in which the
// text before it is what the server sends.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "train/record.h"

namespace nibble::train {

/// Which rows have a loss: those of the assistant's words, or all (divergence to a teacher; a wrong choice for
/// cross-entropy, kept for comparison). `all` renders a record whole, once, and ignores the weights of messages.
enum class LossRows : uint8_t { assistant, all };

/// An empty think block that the server's prompt does not hold: `prompt` refuses it (the server must pre-fill it),
/// `target` trains it.
enum class ThinkPrefix : uint8_t { prompt, target };

/// enable_thinking, as the server will set it; `automatic` leaves it to the template.
enum class Thinking : uint8_t { off, on, automatic };

/// A sample longer than max_length: dropped whole, or without its oldest turns (the system prompt stays, the turns
/// that fell out get a sample of their own). Text is never cut within a message.
enum class Overflow : uint8_t { drop, left_turns };

/// One sample per turn: where the template rewrites history; always; or never, which makes a rewritten history an
/// error.
enum class ExpandTurns : uint8_t { as_needed, always, never };

struct LossKinds {
  bool think = true, content = true, tool_call = true, eos = true;

  bool operator==(const LossKinds&) const = default;
};
/// "think,content,tool_call,eos" or some of these words.
Result<LossKinds> parse_loss_kinds(std::string_view words);
std::string to_text(const LossKinds& kinds);

struct SampleOptions {
  LossRows rows = LossRows::assistant;
  LossKinds kinds = {};
  ThinkPrefix think_prefix = ThinkPrefix::prompt;
  Thinking thinking = Thinking::off;
  Overflow overflow = Overflow::drop;
  ExpandTurns expand = ExpandTurns::as_needed;
  int64_t max_length = 0;  // in tokens; 0 = any
};

/// The trained ids of one assistant message, from its first to behind its last.
struct TrainedTurn {
  int message;        // of the record
  size_t begin, end;  // ids
};

struct Sample {
  std::vector<int32_t> ids;        // [T]
  std::vector<float> weight;       // [T]  weight[t] > 0: row t is scored against ids[t+1]; the last is 0
  std::vector<TrainedTurn> turns;  // none under LossRows::all
  Objective objective = Objective::by_mode;
  int64_t line = 0;  // of the file; 0 where there is none
  std::string id, category;
  std::string key;  // of sample_key

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t loss_rows() const;
};

/// SHA-256 of the ids and of which rows have a loss: the key of a sample.
std::string sample_key(std::span<const int32_t> ids, std::span<const float> weight);

struct RecordSamples {
  std::vector<Sample> samples;
  int64_t too_long = 0;           // samples dropped
  int64_t turns_without_end = 0;  // trained turns whose region ends before <|im_end|>: a model never learns to stop
};

/// The samples of a record; none where nothing in it has a loss. Errors name the message: a template that does not
/// write a message the way that could be masked, a server prompt that is not the beginning of the training text, a
/// call written as text in another form than the template's.
Result<RecordSamples> make_samples(const Record& record, const text::Tokenizer& tokenizer,
                                   const text::ChatTemplate& chat_template, const SampleOptions& options);

}  // namespace nibble::train
