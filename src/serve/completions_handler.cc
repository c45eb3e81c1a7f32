// POST /v1/completions: raw text, no template and no parser; a batch is generated one prompt after the other.
#include "base/clock.h"
#include "serve/chat_prompt.h"
#include "serve/completion_request.h"
#include "serve/field_reader.h"
#include "serve/generation.h"
#include "serve/handlers.h"
#include "serve/reply_json.h"
#include "serve/sse_writer.h"
#include "text/stop_matcher.h"

namespace nibble::serve {
namespace {

constexpr double kRetrySeconds = 0.05;  // before a later prompt of a batch knocks again at a full queue

class CompletionSession : public GenerationListener, public std::enable_shared_from_this<CompletionSession> {
 public:
  CompletionSession(std::shared_ptr<Service> service, std::shared_ptr<Exchange> exchange, GenerationOptions options,
                    std::vector<std::vector<int32_t>> prompts)
      : service_(std::move(service)),
        exchange_(std::move(exchange)),
        options_(std::move(options)),
        prompts_(std::move(prompts)),
        head_(service_->new_reply("cmpl-")),
        sse_(std::make_shared<SseWriter>(exchange_, service_->options.ping_s)) {}

  /// Submits the first prompt.
  std::optional<ApiError> start() {
    auto error = submit();
    if (!error && options_.stream) sse_->start(service_->options.headers_after_s);
    return error;
  }

  void on_scheduled() override {
    if (options_.stream) sse_->open();
  }

  void on_text(const std::string& text, const std::vector<int32_t>&) override {
    if (stop_->found()) return;
    if (usage_.ttft_ms == 0) usage_.ttft_ms = start_.ms();
    std::string out;
    if (stop_->feed(text, out)) cancel_.cancel();
    say(std::move(out));
  }

  void on_finish(engine::Finish finish, const engine::Usage& usage, const Status& error) override {
    if (exchange_->closed()) return;
    const bool stopped = stop_->found().has_value();
    if (finish == engine::Finish::error || (finish == engine::Finish::cancelled && !stopped)) {
      return fail(engine_error(finish, error));
    }
    std::string rest;
    stop_->finish(rest);
    say(std::move(rest));
    usage_.add(usage);
    end_choice(finish == engine::Finish::length && !stopped ? "length" : "stop");
    if (++index_ < prompts_.size()) return next();
    end();
  }

 private:
  std::optional<ApiError> submit() {
    engine::Request job = engine_request(*service_, options_, prompts_[index_]);
    cancel_ = job.cancel;
    stop_.emplace(options_.stop, options_.include_stop_str_in_output);
    text_.clear();
    return generate(service_, exchange_, std::move(job), shared_from_this());
  }

  void next() {
    if (exchange_->closed()) return;
    const auto error = submit();
    if (!error) return;
    if (error->status != 429) return fail(*error);
    exchange_->after(kRetrySeconds, [self = shared_from_this()] { self->next(); });
  }

  void say(std::string text) {
    if (text.empty()) return;
    if (options_.stream) {
      sse_->send(sse_event(text_chunk(head_, index_, std::move(text), std::nullopt, options_.include_usage)));
    } else {
      text_ += text;
    }
  }

  void end_choice(std::string_view reason) {
    if (options_.stream) {
      sse_->send(sse_event(text_chunk(head_, index_, "", reason, options_.include_usage)));
    } else {
      choices_.push_back({{"index", index_}, {"text", text_}, {"logprobs", nullptr}, {"finish_reason", reason}});
    }
  }

  void end() {
    if (!options_.stream) return exchange_->respond(json_response(response_json(head_, kText, choices_, usage_)));
    if (options_.include_usage) sse_->send(sse_event(usage_chunk(head_, kText, usage_)));
    sse_->done();
  }

  void fail(const ApiError& error) { sse_->fail(error); }

  const std::shared_ptr<Service> service_;
  const std::shared_ptr<Exchange> exchange_;
  const GenerationOptions options_;
  const std::vector<std::vector<int32_t>> prompts_;
  const ReplyHead head_;
  const std::shared_ptr<SseWriter> sse_;
  const Stopwatch start_;

  // Of the prompt under way.
  size_t index_ = 0;
  CancelToken cancel_;
  std::optional<text::StopMatcher> stop_;
  std::string text_;

  Json choices_ = Json::array();
  ReplyUsage usage_;
};

std::optional<ApiError> tokenise(const Service& service, const CompletionPrompt& prompt, const std::string& where,
                                 std::vector<int32_t>& out) {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    const Status status = service.tokenizer->encode(*text, text::AddedTokens::parse, out);
    return status.ok() ? std::nullopt : std::optional(invalid_value(where, status.message()));
  }
  out = std::get<std::vector<int32_t>>(prompt);
  for (const int32_t id : out) {
    if (!service.tokenizer->known(id)) return invalid_value(where, fmt::format("expected known token ids, got {}", id));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> completions(const std::shared_ptr<Service>& service,
                                    const std::shared_ptr<Exchange>& exchange) {
  Json body;
  CompletionRequest request;
  if (auto error = parse_body(exchange->request().body, body)) return error;
  if (auto error = read_completion_request(body, request)) return error;
  service->unknown_fields.add(request.unknown_fields);
  if (!service->serves(request.generation.model)) return model_not_found(request.generation.model);

  std::vector<std::vector<int32_t>> prompts(request.prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (auto error = tokenise(*service, request.prompts[i], "prompt", prompts[i])) return error;
    if (auto error = check_fits(*service, prompts[i].size(), "prompt")) return error;
  }
  return std::make_shared<CompletionSession>(service, exchange, std::move(request.generation), std::move(prompts))
      ->start();
}

}  // namespace nibble::serve
