// Cells of recipes whose teacher plays the assistant: the user, the tools and their results come from the recipe.
#include <algorithm>

#include "gate/chat_stream.h"
#include "synth/answers.h"
#include "synth/cell.h"
#include "synth/conversation.h"
#include "synth/draw.h"
#include "text/case_fold.h"
#include "text/json_scanner.h"

namespace nibble::synth {
namespace {

constexpr int kMostDraws = 1000;
constexpr double kSecondTemperature = 0.8;  // of a reply that is asked for again without a word about why

// An exchange with everything filled in.
struct Scene {
  std::string id, user;
  std::vector<std::string> pair;
  std::vector<Step> steps;
};

struct Plan {
  Words words;
  std::string system;
  std::vector<Scene> scenes;
};

Status fill_all(std::vector<std::string>& texts, const Words& words) {
  for (std::string& text : texts) {
    NIBBLE_TRY(filled, fill(text, words));
    text = std::move(filled);
  }
  return {};
}

Result<Scene> scene_of(const Recipe& recipe, const Exchange& exchange, const Words& persona, Rng& rng) {
  Scene scene;
  Words words;
  for (int draws = 0;; ++draws) {
    words = persona;
    draw_words(recipe, exchange.draw, rng, words);
    scene.pair = exchange.pair;
    NIBBLE_RETURN_IF_ERROR(fill_all(scene.pair, words));
    if (scene.pair.empty() || !held_out_pair(scene.pair[0], scene.pair[1])) break;
    if (draws == kMostDraws) return corrupt("exchange {}: expected a pair that is not held out", exchange.id);
  }
  scene.id = exchange.id;
  NIBBLE_TRY(user, fill(one_of(exchange.user, rng), words));
  scene.user = user;
  scene.steps = exchange.steps;
  for (Step& step : scene.steps) {
    for (auto* texts : {&step.words, &step.must, &step.must_any, &step.must_not}) {
      NIBBLE_RETURN_IF_ERROR(fill_all(*texts, words));
    }
    NIBBLE_TRY(result, fill_json(step.result, words));
    step.result = std::move(result);
  }
  return scene;
}

Result<Plan> plan_of(const CellContext& context, const CellWork& work) {
  const Recipe& recipe = *context.recipe;
  Rng rng = rng_of(recipe, context.seed, work.category->id, work.cell, "plan");
  Plan plan;
  draw_words(recipe, recipe.persona, rng, plan.words);
  NIBBLE_TRY(system, fill(recipe.system, plan.words));
  plan.system = system;
  draw_words(recipe, work.category->draw, rng, plan.words);
  const int64_t turns = between(work.category->turns, rng);
  int64_t weights = 0;
  for (const Choice& choice : work.category->exchanges) weights += choice.weight;
  for (int64_t turn = 0; turn < turns; ++turn) {
    int64_t at = rng.below(static_cast<uint32_t>(weights));
    auto choice = work.category->exchanges.begin();
    while (at >= choice->weight) at -= (choice++)->weight;
    NIBBLE_TRY(scene, scene_of(recipe, recipe.exchanges[choice->index], plan.words, rng));
    plan.scenes.push_back(std::move(scene));
  }
  return plan;
}

// Text as it is; else JSON with ", " and ": ", as the tools of most chat data print it.
std::string result_text(const Json& result) {
  if (result.is_string()) return result.get<std::string>();
  return text::reprint_json(result.dump()).value_or(result.dump());
}

bool holds(const std::string& folded, const std::string& text) {
  return folded.find(text::case_fold(text)) != std::string::npos;
}

// What a step asks for, and the message is not.
std::vector<Fault> step_faults(const Step& step, const Json& message) {
  std::vector<Fault> faults;
  const int64_t calls = count_calls(Json::array({message}));
  if (step.call.empty()) {
    if (calls > 0) return {{"wrong_tool", "a call where a reply is due"}};
    const std::string said = text::case_fold(message["content"].get<std::string>());
    const auto in = [&](const std::string& text) { return holds(said, text); };
    for (const std::string& text : step.must) {
      if (!in(text)) faults.push_back({"must", fmt::format("expected \"{}\" in the reply", text)});
    }
    if (!step.must_any.empty() && std::none_of(step.must_any.begin(), step.must_any.end(), in)) {
      faults.push_back(
          {"must", fmt::format("expected one of \"{}\" in the reply", fmt::join(step.must_any, "\", \""))});
    }
    for (const std::string& text : step.must_not) {
      if (in(text)) faults.push_back({"must_not", fmt::format("expected no \"{}\" in the reply", text)});
    }
    return faults;
  }
  if (calls != 1) return {{"wrong_tool", fmt::format("expected one call of {}, got {} calls", step.call, calls)}};
  for_each_call(message, [&](const Json& function) {
    if (function["name"] != step.call) {
      return faults.push_back(
          {"wrong_tool", fmt::format("expected a call of {}, got {}", step.call, function["name"].get<std::string>())});
    }
    const std::string arguments = text::case_fold(gate::dump(function["arguments"]));
    for (const std::string& word : step.words) {
      if (!holds(arguments, word))
        faults.push_back({"arguments", fmt::format("expected \"{}\" in the arguments", word)});
    }
  });
  return faults;
}

// One conversation under way.
class Play {
 public:
  Play(const CellContext& context, const CellWork& work, const Ask& ask, Candidate& candidate)
      : context_(context), work_(work), ask_(ask), candidate_(candidate) {}

  /// Plays until the end or the first message that stays wrong.
  Status run(const Plan& plan) {
    messages_.push_back({{"role", "system"}, {"content", plan.system}});
    for (const Scene& scene : plan.scenes) {
      messages_.push_back({{"role", "user"}, {"content", scene.user}});
      for (const Step& step : scene.steps) {
        NIBBLE_RETURN_IF_ERROR(play(step));
        if (!candidate_.faults.empty()) return {};
        if (step.call.empty()) continue;
        messages_.push_back({{"role", "tool"}, {"content", result_text(step.result)}});
      }
    }
    return {};
  }

  Json& messages() { return messages_; }

 private:
  Status play(const Step& step) {
    Question question;
    question.messages = api_messages(messages_);
    question.tools = context_.recipe->tools;
    question.params = context_.recipe->params;
    question.max_tokens = context_.recipe->max_tokens;
    NIBBLE_TRY(first, say(step, question));
    if (!candidate_.faults.empty()) {
      NIBBLE_RETURN_IF_ERROR(correct(question, first));
      candidate_.attempts = 2;
      NIBBLE_TRY(second, say(step, question));
      first = second;
    }
    messages_.push_back(std::move(first));
    return {};
  }

  // One answer, judged.
  Result<Json> say(const Step& step, Question& question) {
    question.seed = question_seed(context_, work_, 0, step_);
    if (candidate_.prompt.empty()) {
      candidate_.prompt = prompt_hash(question);
      candidate_.seed = question.seed;
    }
    NIBBLE_TRY(answer, ask_(0, step_++, question));
    Json message = message_of(answer.reply);
    candidate_.faults = step_faults(step, message);
    NIBBLE_TRY(own, context_.validator->message_faults(*work_.category, message));
    candidate_.faults.insert(candidate_.faults.end(), own.begin(), own.end());
    if (answer.finish == "length") candidate_.faults.push_back({"cut", "the answer was cut off"});
    return message;
  }

  // The question again: with what is wrong where the recipe has words for that, else hotter.
  Status correct(Question& question, const Json& message) {
    if (context_.recipe->repair.empty()) {
      question.params["temperature"] = kSecondTemperature;
      return {};
    }
    NIBBLE_TRY(words,
               fill(context_.recipe->repair, {{"wrong", to_text(candidate_.faults)}, {"answer", gate::dump(message)}}));
    question.messages.push_back({{"role", "user"}, {"content", words}});
    return {};
  }

  const CellContext& context_;
  const CellWork& work_;
  const Ask& ask_;
  Candidate& candidate_;
  Json messages_ = Json::array();
  int64_t step_ = 0;
};

}  // namespace

Result<CellResult> roll_cell(const CellContext& context, const CellWork& work, const Ask& ask) {
  NIBBLE_TRY(plan, plan_of(context, work));
  CellResult result;
  result.asked = 1;
  Candidate one;
  one.persona = persona_of(plan.words);
  for (const Scene& scene : plan.scenes) {
    one.draws["exchanges"].push_back(scene.id);
    if (!scene.pair.empty()) one.draws["pairs"].push_back(scene.pair);
  }
  Play play(context, work, ask, one);
  if (Status status = play.run(plan); !status.ok()) {
    if (status.code() != Code::unavailable) return status;
    result.lost = true;
    return result;
  }
  one.record = {{"messages", play.messages()}, {"tools", context.recipe->tools}};
  if (one.faults.empty()) {
    NIBBLE_TRY(faults, context.validator->faults(*work.category, one.record));
    one.faults = std::move(faults);
  }
  result.candidates.push_back(std::move(one));
  return result;
}

int64_t question_seed(const CellContext& context, const CellWork& work, int64_t attempt, int64_t step) {
  Rng rng =
      rng_of(*context.recipe, context.seed, work.category->id, work.cell, fmt::format("ask {} {}", attempt, step));
  return static_cast<int64_t>(rng.bits() >> 1) | 1;
}

}  // namespace nibble::synth
