#include "train/sample.h"

#include <algorithm>
#include <optional>

#include "base/sha256.h"
#include "text/chat_encode.h"
#include "text/chat_normalise.h"
#include "text/dialect.h"
#include "train/turn_regions.h"

namespace nibble::train {
namespace {

std::string quoted_tail(std::string_view text) {
  constexpr size_t kShown = 40;
  if (text.size() > kShown) text.remove_prefix(text.size() - kShown);
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string quoted_head(std::string_view text) {
  return Json(text.substr(0, 40)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A trained turn within one rendering.
struct PlacedTurn {
  int message = 0;
  size_t generation = 0;           // where the server's prompt ends and the model goes on
  std::vector<ByteRange> trained;  // ascending, at or after `generation`
  std::vector<int32_t> prompt;     // ids of the server's prompt
  bool has_end = false;
};

class SampleMaker {
 public:
  SampleMaker(const Record& record, const text::Tokenizer& tokenizer, const text::ChatTemplate& chat_template,
              const SampleOptions& options)
      : record_(record),
        tokenizer_(tokenizer),
        chat_template_(chat_template),
        options_(options),
        tools_(text::normalise_tools(record.tools)) {
    if (options.thinking != Thinking::automatic) kwargs_["enable_thinking"] = options.thinking == Thinking::on;
    while (system_ < record.messages.size() && is_system(record.messages[system_])) ++system_;
  }

  Result<RecordSamples> make() {
    NIBBLE_RETURN_IF_ERROR(check_calls_in_content());
    if (record_.record_weight == 0) return std::move(out_);
    if (options_.rows == LossRows::all) {
      NIBBLE_RETURN_IF_ERROR(add_whole());
      return std::move(out_);
    }
    for (size_t i = 0; i < record_.weight.size(); ++i) {
      if (record_.weight[i] > 0) todo_.push_back(i);
    }
    while (!todo_.empty()) NIBBLE_RETURN_IF_ERROR(add_longest());
    std::reverse(out_.samples.begin(), out_.samples.end());
    return std::move(out_);
  }

 private:
  static bool is_system(const Json& message) { return message["role"] == "system" || message["role"] == "developer"; }

  // A model that reads calls in one form and is trained to write them in another does neither.
  Status check_calls_in_content() const {
    const text::ToolDialect taught = text::dialect_of_template(chat_template_.source());
    for (size_t i = 0; i < record_.messages.size(); ++i) {
      const Json& message = record_.messages[i];
      if (message["role"] != "assistant") continue;
      const std::string_view content = message["content"].get_ref<const std::string&>();
      const size_t tag = content.find("<tool_call>");
      if (tag == std::string_view::npos) continue;
      const bool xml = content.find("<function=", tag) != std::string_view::npos;
      const auto written = xml ? text::ToolDialect::qwen3_xml : text::ToolDialect::hermes;
      if (taught == text::ToolDialect::automatic || written == taught) continue;
      return corrupt("messages[{}].content: expected tool calls in the template's form {}, got one written in form {}",
                     i, text::name(taught), text::name(written))
          .with_hint("put calls into \"tool_calls\": the template writes them");
    }
    return {};
  }

  // Messages [0, system) and [start, end) of the record, as the server would get them.
  Result<text::Rendered> render(size_t start, size_t end, bool generation_prompt) const {
    Json messages = Json::array();
    for (size_t i = 0; i < end; ++i) {
      if (i < system_ || i >= start) messages.push_back(record_.messages[i]);
    }
    NIBBLE_TRY(normal, text::normalise_messages(messages, chat_template_));
    return chat_template_.render(normal, tools_, {.add_generation_prompt = generation_prompt, .kwargs = kwargs_});
  }

  // The next user message: where a conversation may begin. npos: there is none before `last`.
  size_t next_start(size_t start, size_t last) const {
    for (size_t i = start + 1; i < last; ++i) {
      if (record_.messages[i]["role"] == "user") return i;
    }
    return std::string::npos;
  }

  bool fits(size_t tokens) const {
    return options_.max_length == 0 || tokens <= static_cast<size_t>(options_.max_length);
  }

  Status add_whole() {
    for (size_t start = system_;;) {
      NIBBLE_TRY(rendered, render(start, record_.messages.size(), false));
      Sample sample;
      NIBBLE_RETURN_IF_ERROR(text::encode_rendered(tokenizer_, rendered, false, sample.ids));
      if (fits(sample.ids.size())) {
        sample.weight.assign(sample.ids.size(), record_.record_weight);
        finish(std::move(sample));
        return {};
      }
      start =
          options_.overflow == Overflow::left_turns ? next_start(start, record_.messages.size()) : std::string::npos;
      if (start == std::string::npos) {
        ++out_.too_long;
        return {};
      }
    }
  }

  // One sample that ends with the last turn left to do and trains all others that it can.
  Status add_longest() {
    const size_t last = todo_.back();
    for (size_t start = system_;;) {
      NIBBLE_TRY(rendered, render(start, last + 1, false));
      NIBBLE_TRY(turns, place(rendered, start, last));
      Sample sample;
      NIBBLE_TRY(alone, encode(rendered, turns, sample));
      if (!alone && options_.expand == ExpandTurns::never) return not_the_prompt(rendered, turns.back());
      if (!alone) {
        turns.erase(turns.begin(), turns.end() - 1);
        sample = {};
        NIBBLE_TRY(same, encode(rendered, turns, sample));
        if (!same) return not_the_prompt(rendered, turns.back());
      }
      const bool fit = fits(sample.ids.size());
      if (!fit && options_.overflow == Overflow::left_turns) {
        const size_t next = next_start(start, last);
        if (next != std::string::npos) {
          start = next;
          continue;
        }
      }
      for (const PlacedTurn& turn : turns) {
        std::erase(todo_, static_cast<size_t>(turn.message));
        if (fit && !turn.has_end) ++out_.turns_without_end;
      }
      fit ? finish(std::move(sample)) : void(++out_.too_long);
      return {};
    }
  }

  // The turns of todo_ that this rendering shows as the server would; the last one is among them, else it is an error.
  Result<std::vector<PlacedTurn>> place(const text::Rendered& rendered, size_t start, size_t last) {
    std::vector<int> assistants;  // of the normalised messages, whose order normalising keeps
    for (size_t i = 0; i < rendered.roles.size(); ++i) {
      if (rendered.roles[i] == "assistant") assistants.push_back(static_cast<int>(i));
    }
    const auto spans = text::assistant_spans(rendered);
    std::vector<PlacedTurn> turns;
    size_t ordinal = 0;
    for (size_t i = 0; i <= last; ++i) {
      if (i >= system_ && i < start) continue;
      if (record_.messages[i]["role"] != "assistant") continue;
      NIBBLE_CHECK(ordinal < assistants.size());
      const int message = assistants[ordinal++];
      if (!std::binary_search(todo_.begin(), todo_.end(), i)) continue;
      if (options_.expand == ExpandTurns::always && i != last) continue;
      auto turn = place_turn(rendered, spans, start, i, message);
      if (turn.ok()) {
        turns.push_back(*std::move(turn));
      } else if (i == last || options_.expand == ExpandTurns::never) {
        return turn.status();
      }
    }
    return turns;
  }

  Result<PlacedTurn> place_turn(const text::Rendered& rendered, const std::vector<text::AssistantSpan>& spans,
                                size_t start, size_t index, int message) {
    PlacedTurn turn;
    turn.message = static_cast<int>(index);
    const auto regions = turn_regions(rendered, spans, message);
    if (!regions.has_value()) {
      return unsupported(
                 "messages[{}]: expected a template that writes \"<|im_start|>assistant\\n\" … \"<|im_end|>\" "
                 "around it, got neither these nor a {{% generation %}} block ({})",
                 index, chat_template_.name())
          .with_hint(
              "this template cannot be masked; mark the assistant's text with {% generation %}, or --loss-rows all");
    }
    NIBBLE_TRY(prompt, render(start, index, true));
    NIBBLE_RETURN_IF_ERROR(text::encode_rendered(tokenizer_, prompt, false, turn.prompt));
    turn.generation = prompt.text.size();
    if (!rendered.text.starts_with(prompt.text) || turn.generation < regions->body ||
        turn.generation > regions->content_begin) {
      return prompt_differs(rendered, prompt, *regions, index);
    }
    const LossKinds& kinds = options_.kinds;
    const bool prefill = regions->think_is_empty && turn.generation < regions->content_begin;
    if (prefill && kinds.think && options_.think_prefix == ThinkPrefix::prompt) {
      return invalid_argument(
                 "messages[{}]: expected the server's prompt to hold the empty think block, got a prompt "
                 "that ends with {}",
                 index, quoted_tail(prompt.text))
          .with_hint("--think-prefix target trains the block; --thinking off lets templates that can pre-fill it");
    }
    const auto add = [&](bool wanted, size_t begin, size_t end) {
      begin = std::max(begin, turn.generation);
      if (!wanted || begin >= end) return;
      if (!turn.trained.empty() && turn.trained.back().end == begin) {
        turn.trained.back().end = end;
      } else {
        turn.trained.push_back({begin, end});
      }
    };
    add(kinds.think, regions->body, regions->content_begin);
    add(kinds.content, regions->content_begin, regions->calls_begin);
    add(kinds.tool_call, regions->calls_begin, regions->eos_begin);
    add(kinds.eos, regions->eos_begin, regions->end);
    for (const ByteRange& range : regions->more) add(kinds.content, range.begin, range.end);
    turn.has_end = regions->eos_begin < regions->end;
    return turn;
  }

  Status prompt_differs(const text::Rendered& rendered, const text::Rendered& prompt, const TurnRegions& regions,
                        size_t index) const {
    const bool thinks = !regions.think_is_empty && regions.body < regions.content_begin;
    if (thinks && options_.thinking == Thinking::off) {
      return invalid_argument("messages[{}]: expected no reasoning under thinking off, got reasoning", index)
          .with_hint("--thinking on, if the server will run so; else remove reasoning_content");
    }
    const auto [a, b] =
        std::mismatch(prompt.text.begin(), prompt.text.end(), rendered.text.begin(), rendered.text.end());
    const auto at = static_cast<size_t>(a - prompt.text.begin());
    return invalid_argument(
               "messages[{}]: expected the training text to begin with the server's prompt, got {} where "
               "the prompt has {}",
               index, quoted_head(std::string_view(rendered.text).substr(at)),
               quoted_head(std::string_view(prompt.text).substr(at)))
        .with_hint("check --thinking; a template that rewrites history needs --expand-turns as-needed");
  }

  Status not_the_prompt(const text::Rendered& rendered, const PlacedTurn& turn) const {
    return invalid_argument(
        "messages[{}]: expected the ids before the first trained token to be those of the server's "
        "prompt, got others before {}",
        turn.message, quoted_head(std::string_view(rendered.text).substr(turn.generation)));
  }

  // False where a turn's prompt does not have the ids that the server would give it, because a forced border of an
  // earlier turn split what the server reads as one token.
  Result<bool> encode(const text::Rendered& rendered, const std::vector<PlacedTurn>& turns, Sample& sample) const {
    std::vector<size_t> cuts;
    for (const PlacedTurn& turn : turns) {
      cuts.push_back(turn.generation);
      for (const ByteRange& range : turn.trained) cuts.insert(cuts.end(), {range.begin, range.end});
    }
    std::vector<size_t> tokens;
    NIBBLE_RETURN_IF_ERROR(text::encode_rendered(tokenizer_, rendered, false, cuts, sample.ids, tokens));
    sample.weight.assign(sample.ids.size(), 0);
    size_t cut = 0;
    for (const PlacedTurn& turn : turns) {
      const size_t generation = tokens[cut++];
      if (generation != turn.prompt.size() || !std::equal(turn.prompt.begin(), turn.prompt.end(), sample.ids.begin())) {
        return false;
      }
      const float weight = record_.weight[static_cast<size_t>(turn.message)];
      for (size_t i = 0; i < turn.trained.size(); ++i, cut += 2) {
        // The first id of a sequence has no row before it.
        const size_t begin = std::max<size_t>(tokens[cut], 1), end = tokens[cut + 1];
        for (size_t id = begin; id < end; ++id) sample.weight[id - 1] = weight;
      }
      if (!turn.trained.empty()) {
        sample.turns.push_back({turn.message, tokens[cut - 2 * turn.trained.size()], tokens[cut - 1]});
      }
    }
    return true;
  }

  void finish(Sample sample) {
    if (!sample.weight.empty()) sample.weight.back() = 0;
    if (sample.loss_rows() == 0) return;
    sample.key = sample_key(sample.ids, sample.weight);
    sample.objective = record_.objective;
    sample.id = record_.id;
    sample.category = record_.category;
    out_.samples.push_back(std::move(sample));
  }

  const Record& record_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& chat_template_;
  const SampleOptions& options_;
  Json tools_, kwargs_ = Json::object();
  size_t system_ = 0;         // leading system messages
  std::vector<size_t> todo_;  // trained messages without a sample, ascending
  RecordSamples out_;
};

}  // namespace

int64_t Sample::loss_rows() const {
  return std::count_if(weight.begin(), weight.end(), [](float w) { return w > 0; });
}

std::string sample_key(std::span<const int32_t> ids, std::span<const float> weight) {
  std::vector<uint8_t> mask(weight.size());
  std::transform(weight.begin(), weight.end(), mask.begin(), [](float w) { return w > 0 ? 1 : 0; });
  return Sha256().add_values(ids).add_values(std::span<const uint8_t>(mask)).hex();
}

Result<LossKinds> parse_loss_kinds(std::string_view words) {
  LossKinds kinds{false, false, false, false};
  for (size_t begin = 0; begin <= words.size();) {
    const size_t end = std::min(words.find(',', begin), words.size());
    const std::string_view word = words.substr(begin, end - begin);
    begin = end + 1;
    if (word == "think") {
      kinds.think = true;
    } else if (word == "content") {
      kinds.content = true;
    } else if (word == "tool_call") {
      kinds.tool_call = true;
    } else if (word == "eos") {
      kinds.eos = true;
    } else {
      return invalid_argument("loss-kinds: expected some of think,content,tool_call,eos, got \"{}\"", words);
    }
  }
  return kinds;
}

std::string to_text(const LossKinds& kinds) {
  std::string text;
  const auto add = [&](bool wanted, const char* word) {
    if (!wanted) return;
    if (!text.empty()) text += ',';
    text += word;
  };
  add(kinds.think, "think");
  add(kinds.content, "content");
  add(kinds.tool_call, "tool_call");
  add(kinds.eos, "eos");
  return text;
}

Result<RecordSamples> make_samples(const Record& record, const text::Tokenizer& tokenizer,
                                   const text::ChatTemplate& chat_template, const SampleOptions& options) {
  return SampleMaker(record, tokenizer, chat_template, options).make();
}

}  // namespace nibble::train
