#include "gate/speed_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "gate/chat_stream.h"
#include "gate/speed_prompts.h"

namespace nibble::gate {
namespace {

constexpr int kFailuresInARow = 3;
constexpr int64_t kShortPrompt = 128;  // tokens, where no context was asked for
constexpr int64_t kSizingWords[] = {60, 240};
constexpr int kSizings = 6;  // prompts that are counted before one of a wanted size is taken as it is
constexpr int64_t kWarmUpTokens = 16;
constexpr double kLeastRead = 0.75;  // of a prompt; a server that reads less has cut it

// Requests that differ in nothing that matters.
struct Point {
  Sweep sweep = Sweep::preparation;
  int64_t size = 0;
  bool warm = false;
  int64_t requests = 1, clients = 1;
  int64_t max_tokens = 1;
  PromptShape shape = {};
  int64_t first_number = 0;  // of the last lines
  bool counted = true;
};

struct Outcome {
  int64_t answered = 0;
  double mean_first_s = 0;     // to the first chunk,
  double mean_s = 0;           // of a reply that was answered
  int64_t prompt_tokens = -1;  // of the last, as the server counts
  Status failure;              // the last, if any
};

class Measurement {
 public:
  Measurement(const SpeedOptions& options, SpeedRun& run, const Progress& progress)
      : options_(options), run_(run), progress_(progress), endpoint_(endpoint_options(options)) {
    std::sort(contexts_.begin(), contexts_.end());
    count_requests();
  }

  Status all() {
    NIBBLE_RETURN_IF_ERROR(prepare());
    for (const Sweep sweep : options_.sweeps) {
      switch (sweep) {
        case Sweep::preparation:
          break;
        case Sweep::context:
          NIBBLE_RETURN_IF_ERROR(sweep_contexts());
          break;
        case Sweep::conversation:
          NIBBLE_RETURN_IF_ERROR(hold_conversations());
          break;
        case Sweep::concurrency:
          NIBBLE_RETURN_IF_ERROR(sweep_clients());
          break;
        case Sweep::output:
          NIBBLE_RETURN_IF_ERROR(sweep_outputs());
          break;
      }
    }
    report(progress_, total_, total_, "done");
    return {};
  }

 private:
  static EndpointOptions endpoint_options(const SpeedOptions& options) {
    EndpointOptions endpoint = options.endpoint;
    endpoint.retries = 0;
    return endpoint;
  }

  int64_t requests_of(int64_t clients) const { return std::max(options_.requests, 2 * clients); }

  void count_requests() {
    int64_t all = 2 + kSizings + options_.warmup;
    for (const Sweep sweep : options_.sweeps) {
      if (sweep == Sweep::context)
        all += static_cast<int64_t>(contexts_.size()) * (2 * options_.requests + 1 + kSizings);
      if (sweep == Sweep::conversation) all += options_.conversations * options_.turns;
      if (sweep == Sweep::output) all += static_cast<int64_t>(options_.outputs.size()) * options_.requests;
      if (sweep == Sweep::concurrency) {
        for (const int64_t clients : options_.clients) all += requests_of(clients);
      }
    }
    total_ = static_cast<uint64_t>(all);
  }

  // The requests of a point that are not sent are done, too.
  void skip_to(uint64_t done) { done_ = std::max(done_, done); }

  // The number of a prefix: of a point as a whole, or of one of its requests.
  static uint64_t prefix_of(const Point& point, int64_t request) {
    return static_cast<uint64_t>(point.sweep) << 56 | static_cast<uint64_t>(point.size) << 24 |
           static_cast<uint64_t>(point.warm ? 0xFFFFFF : request);
  }

  ChatRequest request_of(const Point& point, int64_t n) const {
    ChatRequest request;
    request.params = options_.params;
    request.params["max_tokens"] = point.max_tokens;
    request.messages =
        sized_messages(options_.seed, prefix_of(point, n), static_cast<uint64_t>(point.first_number + n), point.shape);
    return request;
  }

  // Times one request; the record has all of the reply but its texts.
  Result<StreamedReply> send(ChatEndpoint& endpoint, const ChatRequest& request, SpeedRecord& record) const {
    record.begin_ms = watch_.ms();
    auto said = endpoint.complete(request);
    record.end_ms = watch_.ms();
    if (!said.ok()) {
      record.error = said.status().message();
      return said;
    }
    record.said = *said;
    record.said.reply = {};
    return said;
  }

  // With `lock` on run_ where there are several clients.
  void keep(SpeedRecord record) {
    const std::string what = fmt::format("{} {}{}", name(record.sweep), record.size, record.warm ? ", warm" : "");
    run_.records.push_back(std::move(record));
    report(progress_, std::min(++done_, total_), total_, what);
  }

  Result<Outcome> measure(const Point& point) {
    const Stopwatch watch;
    const uint64_t end = done_ + static_cast<uint64_t>(point.requests);
    const int64_t fewest = std::max(kFewestRequests, point.clients);
    std::mutex mutex;  // over all of these, and over run_
    int64_t next = 0;
    int failures = 0;
    bool stop = false;
    double sum_s = 0, sum_first_s = 0;
    Outcome outcome;
    const auto work = [&](ChatEndpoint& endpoint, int64_t client) {
      std::unique_lock lock(mutex);
      while (!stop && next < point.requests) {
        if (options_.seconds > 0 && watch.seconds() > options_.seconds && outcome.answered >= fewest) return;
        const int64_t n = next++;
        lock.unlock();
        SpeedRecord record{
            .sweep = point.sweep, .size = point.size, .warm = point.warm, .stream = client, .counted = point.counted};
        const auto said = send(endpoint, request_of(point, n), record);
        lock.lock();
        if (said.ok()) {
          ++outcome.answered;
          sum_s += (record.end_ms - record.begin_ms) / 1e3;
          sum_first_s += std::max(0.0, said->times.first_chunk_ms) / 1e3;
          outcome.prompt_tokens = said->usage.prompt_tokens;
          failures = 0;
        } else {
          outcome.failure = said.status();
          const Code code = said.status().code();
          stop = stop || code == Code::cancelled || code == Code::invalid_argument || ++failures >= kFailuresInARow;
          if (code == Code::cancelled) continue;
        }
        keep(std::move(record));
      }
    };
    if (point.clients == 1) {
      work(endpoint_, 0);
    } else {
      std::vector<std::thread> threads;
      for (int64_t client = 0; client < point.clients; ++client) {
        threads.emplace_back([&, client] {
          ChatEndpoint endpoint(endpoint_.options());
          work(endpoint, client);
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
    skip_to(end);
    if (outcome.answered > 0) {
      outcome.mean_s = sum_s / static_cast<double>(outcome.answered);
      outcome.mean_first_s = sum_first_s / static_cast<double>(outcome.answered);
    }
    if (!outcome.failure.ok()) NIBBLE_RETURN_IF_ERROR(still_there(outcome.failure));
    return outcome;
  }

  // Whether it makes sense to go on after a failure.
  Status still_there(const Status& failure) {
    if (failure.code() == Code::cancelled) return failure;
    const auto models = endpoint_.send("/v1/models");
    if (models.ok() || models.status().code() == Code::invalid_argument) return {};
    return models.status();
  }

  // The first request meets a server that has done nothing yet; with the second it tells how long words are.
  Status prepare() {
    int64_t tokens[2] = {-1, -1};
    for (const int i : {0, 1}) {
      NIBBLE_TRY(outcome,
                 measure({.size = i, .max_tokens = kWarmUpTokens, .shape = {kSizingWords[i]}, .counted = false}));
      if (!outcome.failure.ok()) {
        return outcome.failure.code() == Code::invalid_argument
                   ? std::move(outcome.failure)
                         .with_hint("--thinking default leaves out a parameter that not every server knows")
                   : outcome.failure;
      }
      tokens[i] = outcome.prompt_tokens;
    }
    sizes_ = PromptSizes::through(kSizingWords[0], tokens[0], kSizingWords[1], tokens[1]);
    run_.sizes_measured = sizes_.measured;
    if (sizes_.measured) {
      NIBBLE_TRY(told, tokenize({.size = 1, .shape = {kSizingWords[1]}}));
      tokenizes_ = told == tokens[1];
    }
    NIBBLE_TRY(shape, shape_of(short_prompt()));
    NIBBLE_TRY(
        outcome,
        measure(
            {.size = 2, .requests = options_.warmup, .max_tokens = kWarmUpTokens, .shape = shape, .counted = false}));
    return outcome.failure;
  }

  int64_t short_prompt() const { return contexts_.empty() ? kShortPrompt : contexts_.front(); }

  // Tokens of a point's first prompt, as the server counts them by the route of vLLM and nibble; -1 where it has none.
  Result<int64_t> tokenize(const Point& point) {
    const ChatRequest request = request_of(point, 0);
    Json json = {{"model", options_.endpoint.model}, {"messages", request.messages}};
    const auto kwargs = options_.params.find("chat_template_kwargs");
    if (kwargs != options_.params.end()) json["chat_template_kwargs"] = *kwargs;
    const std::string body = dump(json);
    const auto answer = endpoint_.send("/tokenize", &body);
    if (answer.status().code() == Code::cancelled) return answer.status();
    if (!answer.ok()) return int64_t{-1};
    const auto counted = parse_json(*answer, "/tokenize");
    if (!counted.ok() || !counted->is_object() || !counted->contains("count")) return int64_t{-1};
    const Json& count = (*counted)["count"];
    return count.is_number_integer() ? count.get<int64_t>() : int64_t{-1};
  }

  // The same by that route where it counts as the replies do, else by the reply to the prompt.
  Result<int64_t> count_tokens(const Point& point) {
    if (tokenizes_) return tokenize(point);
    NIBBLE_TRY(outcome, measure(point));
    return outcome.prompt_tokens;
  }

  // Of prompts of so many tokens, or as near as words and digits come.
  Result<PromptShape> shape_of(int64_t tokens) {
    const auto [known, is_new] = shapes_.try_emplace(tokens, PromptShape{sizes_.words(tokens)});
    PromptShape& best = known->second;
    Point point{.size = tokens, .shape = best, .counted = false};
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < kSizings && is_new && sizes_.measured && least > 0; ++i) {
      NIBBLE_TRY(counted, count_tokens(point));
      // What is not counted, or cut, tells nothing.
      if (static_cast<double>(counted) < kLeastRead * static_cast<double>(tokens)) break;
      const int64_t missing = tokens - counted;
      if (std::abs(missing) < least) best = point.shape;
      least = std::min(least, std::abs(missing));
      point.shape = sizes_.nearer(point.shape, missing);
    }
    return best;
  }

  bool too_slow(double request_s) const {
    return options_.seconds > 0 && request_s * static_cast<double>(kFewestRequests) > kPatience * options_.seconds;
  }

  void leave_out(Sweep sweep, int64_t size, const std::string& why) {
    run_.skipped.push_back(fmt::format("{} {}: {}", name(sweep), size, why));
  }

  // The records of a point that turned out to be none.
  void uncount(Sweep sweep, int64_t size) {
    for (SpeedRecord& record : run_.records) {
      if (record.sweep == sweep && record.size == size) record.counted = false;
    }
  }

  Status sweep_contexts() {
    std::string why;  // of the first that was left out
    Outcome last;
    int64_t last_size = 0;
    for (const int64_t size : contexts_) {
      const uint64_t end = done_ + static_cast<uint64_t>(2 * options_.requests + 1 + kSizings);
      // Reading takes as much longer as there is more to read; speaking takes as long.
      const double more = last_size == 0 ? 0 : static_cast<double>(size) / static_cast<double>(last_size);
      const double expected_s = last.mean_first_s * more + last.mean_s - last.mean_first_s;
      if (why.empty() && too_slow(expected_s)) {
        why = fmt::format("a request would take about {:.0f} s, too long for --seconds {:g}", expected_s,
                          options_.seconds);
      }
      if (why.empty()) {
        NIBBLE_TRY(outcome, measure_context(size));
        last = outcome;
        last_size = size;
        why = !outcome.failure.ok() && outcome.answered == 0 ? outcome.failure.message() : "";
        if (outcome.answered > 0 && cut(outcome, size)) {
          why = fmt::format("the server read {} tokens of it", outcome.prompt_tokens);
          uncount(Sweep::context, size);
        }
      }
      if (!why.empty()) leave_out(Sweep::context, size, why);
      skip_to(end);
    }
    return {};
  }

  bool cut(const Outcome& outcome, int64_t size) const {
    const auto asked = static_cast<double>(size);
    return sizes_.measured && asked > sizes_.base + sizes_.per_word && outcome.prompt_tokens >= 0 &&
           static_cast<double>(outcome.prompt_tokens) < kLeastRead * asked;
  }

  // Cold, then warm; what it says is of the cold ones.
  Result<Outcome> measure_context(int64_t size) {
    NIBBLE_TRY(shape, shape_of(size));
    Point point{.sweep = Sweep::context,
                .size = size,
                .requests = options_.requests,
                .max_tokens = options_.max_tokens,
                .shape = shape};
    NIBBLE_TRY(cold, measure(point));
    if (cold.failure.code() == Code::invalid_argument) uncount(Sweep::context, size);  // no speed, but a limit
    if (cold.answered == 0 || cut(cold, size)) return cold;
    point.warm = true;
    Point first = point;  // after which the prefix is known
    first.requests = 1;
    first.counted = false;
    NIBBLE_TRY(primed, measure(first));
    point.first_number = 1;
    if (primed.answered > 0) NIBBLE_RETURN_IF_ERROR(measure(point).status());
    return cold;
  }

  Status hold_conversations() {
    const Stopwatch watch;
    const uint64_t end = done_ + static_cast<uint64_t>(options_.conversations * options_.turns);
    for (int64_t i = 0; i < options_.conversations; ++i) {
      if (i > 0 && options_.seconds > 0 && watch.seconds() > kPatience * options_.seconds) break;
      NIBBLE_TRY(whole, hold_conversation(i));
      if (!whole) break;
    }
    skip_to(end);
    return {};
  }

  // Whether it came to its last turn.
  Result<bool> hold_conversation(int64_t conversation) {
    const Point begin{.sweep = Sweep::conversation};
    ChatRequest request;
    request.params = options_.params;
    request.params["max_tokens"] = options_.max_tokens;
    request.messages.push_back(voice_system_message(options_.seed, prefix_of(begin, conversation)));
    for (int64_t turn = 1; turn <= options_.turns; ++turn) {
      request.messages.push_back({{"role", "user"}, {"content", voice_line(turn)}});
      SpeedRecord record{.sweep = Sweep::conversation, .size = turn, .stream = conversation};
      const auto said = send(endpoint_, request, record);
      if (!said.ok()) {
        const Status& failure = said.status();
        if (failure.code() != Code::cancelled) {
          // A conversation that outgrows the server is no failure of it.
          record.counted = failure.code() != Code::invalid_argument;
          keep(std::move(record));
          leave_out(Sweep::conversation, turn, failure.message());
        }
        NIBBLE_RETURN_IF_ERROR(still_there(failure));
        return false;
      }
      keep(std::move(record));
      request.messages.push_back(assistant_message(said->reply));
    }
    return true;
  }

  Status sweep_clients() {
    NIBBLE_TRY(shape, shape_of(short_prompt()));
    for (const int64_t clients : options_.clients) {
      NIBBLE_RETURN_IF_ERROR(measure({.sweep = Sweep::concurrency,
                                      .size = clients,
                                      .requests = requests_of(clients),
                                      .clients = clients,
                                      .max_tokens = options_.max_tokens,
                                      .shape = shape})
                                 .status());
    }
    return {};
  }

  Status sweep_outputs() {
    NIBBLE_TRY(shape, shape_of(short_prompt()));
    double token_s = 0;  // of the replies so far
    for (const int64_t tokens : options_.outputs) {
      if (const double expected_s = token_s * static_cast<double>(tokens); too_slow(expected_s)) {
        leave_out(Sweep::output, tokens,
                  fmt::format("a reply would take about {:.0f} s, too long for --seconds {:g}", expected_s,
                              options_.seconds));
        skip_to(done_ + static_cast<uint64_t>(options_.requests));
        continue;
      }
      NIBBLE_TRY(outcome, measure({.sweep = Sweep::output,
                                   .size = tokens,
                                   .requests = options_.requests,
                                   .max_tokens = tokens,
                                   .shape = shape}));
      if (outcome.answered > 0) token_s = outcome.mean_s / static_cast<double>(tokens);
    }
    return {};
  }

  const SpeedOptions& options_;
  SpeedRun& run_;
  const Progress& progress_;
  ChatEndpoint endpoint_;
  std::vector<int64_t> contexts_ = options_.contexts;
  PromptSizes sizes_;
  bool tokenizes_ = false;                 // the server counts prompts without reading them
  std::map<int64_t, PromptShape> shapes_;  // by tokens
  Stopwatch watch_;
  uint64_t done_ = 0, total_ = 0;
};

}  // namespace

const char* name(Sweep sweep) {
  constexpr const char* kNames[] = {"preparation", "context", "conversation", "concurrency", "output"};
  return kNames[static_cast<size_t>(sweep)];
}

Status run_speed_bench(const SpeedOptions& options, SpeedRun& run, const Progress& progress) {
  return Measurement(options, run, progress).all();
}

}  // namespace nibble::gate
