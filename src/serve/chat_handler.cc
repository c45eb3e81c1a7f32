// POST /v1/chat/completions.
#include "base/clock.h"
#include "serve/chat_prompt.h"
#include "serve/field_reader.h"
#include "serve/generation.h"
#include "serve/handlers.h"
#include "serve/reasoning_counter.h"
#include "serve/reply_json.h"
#include "serve/sse_writer.h"

namespace nibble::serve {
namespace {

/// What streamed and whole replies have in common: deltas, usage, the end.
class ChatSession : public GenerationListener {
 public:
  ChatSession(std::shared_ptr<Service> service, std::shared_ptr<Exchange> exchange, const ChatRequest& request,
              bool reasoning_open, CancelToken cancel, double start_s)
      : service_(std::move(service)),
        exchange_(std::move(exchange)),
        head_(service_->new_reply("chatcmpl-")),
        include_usage_(request.generation.include_usage),
        reply_(reply_options(*service_, request, reasoning_open)),
        reasoning_(*service_->tokenizer, reasoning_open, !request.tools.empty()),
        cancel_(std::move(cancel)),
        start_s_(start_s) {}

  void on_scheduled() override {}

  void on_text(const std::string& text, const std::vector<int32_t>& tokens) override {
    if (reply_.complete()) return;
    reasoning_.add(tokens);
    std::vector<Delta> deltas;
    reply_.feed(text, deltas);
    pass_on(deltas);
    if (reply_.complete()) cancel_.cancel();
  }

  void on_finish(engine::Finish finish, const engine::Usage& usage, const Status& error) override {
    if (exchange_->closed()) return;
    const bool broken = finish == engine::Finish::error || (finish == engine::Finish::cancelled && !reply_.complete());
    if (broken) return fail(engine_error(finish, error));
    std::vector<Delta> deltas;
    reply_.finish(finish == engine::Finish::length, deltas);
    pass_on(deltas);
    usage_.add(usage);
    usage_.reasoning_tokens = reasoning_.count();
    end();
  }

 protected:
  virtual void deliver(const std::vector<Delta>& deltas) = 0;
  virtual void fail(const ApiError& error) = 0;
  virtual void end() = 0;

  ReasoningField reasoning_field() const { return service_->options.reasoning_field; }

  const std::shared_ptr<Service> service_;
  const std::shared_ptr<Exchange> exchange_;
  const ReplyHead head_;
  const bool include_usage_;
  Reply reply_;
  ReplyUsage usage_;

 private:
  void pass_on(const std::vector<Delta>& deltas) {
    if (deltas.empty()) return;
    if (usage_.ttft_ms == 0) usage_.ttft_ms = (now_s() - start_s_) * 1e3;
    deliver(deltas);
  }

  ReasoningCounter reasoning_;
  const CancelToken cancel_;
  const double start_s_;
};

class WholeChat : public ChatSession {
 public:
  using ChatSession::ChatSession;

 private:
  void deliver(const std::vector<Delta>& deltas) override {
    for (const Delta& delta : deltas) message_.add(delta);
  }
  void fail(const ApiError& error) override { exchange_->respond(error.response()); }
  void end() override {
    const Json choice = {{"index", 0},
                         {"message", message_json(message_, reply_.healed_calls(), reasoning_field())},
                         {"logprobs", nullptr},
                         {"finish_reason", reply_.finish_reason()}};
    exchange_->respond(json_response(response_json(head_, kChat, Json::array({choice}), usage_)));
  }

  ReplyMessage message_;
};

class StreamedChat : public ChatSession {
 public:
  template <class... A>
  explicit StreamedChat(A&&... arguments)
      : ChatSession(std::forward<A>(arguments)...),
        sse_(std::make_shared<SseWriter>(exchange_, service_->options.ping_s)) {}

  void start() { sse_->start(service_->options.headers_after_s); }
  void on_scheduled() override { sse_->open(); }

 private:
  std::string chunk(Json delta, std::optional<std::string_view> finish_reason = std::nullopt) {
    return sse_event(chat_chunk(head_, std::move(delta), finish_reason, include_usage_));
  }
  // The role goes out with the first thing that is said: clients stop their clock for the first token at the first
  // chunk that has a choice.
  std::string role_chunk() {
    if (std::exchange(role_sent_, true)) return {};
    return chunk({{"role", "assistant"}, {"content", ""}});
  }

  void deliver(const std::vector<Delta>& deltas) override {
    std::string events = role_chunk();
    for (const Delta& delta : deltas) events += chunk(delta_json(delta, reasoning_field()));
    sse_->send(std::move(events));
  }
  void fail(const ApiError& error) override { sse_->fail(error); }
  void end() override {
    Json last = chat_chunk(head_, Json::object(), reply_.finish_reason(), include_usage_);
    if (!reply_.healed_calls().empty()) last["nibble"] = {{"healed_tool_calls", reply_.healed_calls()}};
    std::string events = role_chunk() + sse_event(last);
    if (include_usage_) events += sse_event(usage_chunk(head_, kChatChunk, usage_));
    sse_->send(std::move(events));
    sse_->done();
  }

  const std::shared_ptr<SseWriter> sse_;
  bool role_sent_ = false;
};

}  // namespace

std::optional<ApiError> read_chat(Service& service, std::string_view body, ChatRequest& out) {
  Json json;
  if (auto error = parse_body(body, json)) return error;
  if (auto error = read_chat_request(json, out)) return error;
  service.unknown_fields.add(out.unknown_fields);
  if (!service.serves(out.generation.model)) return model_not_found(out.generation.model);
  return std::nullopt;
}

std::optional<ApiError> chat_completions(const std::shared_ptr<Service>& service,
                                         const std::shared_ptr<Exchange>& exchange) {
  const double start_s = now_s();
  ChatRequest request;
  if (auto error = read_chat(*service, exchange->request().body, request)) return error;
  ChatPrompt prompt;
  if (auto error = make_chat_prompt(*service, request, prompt)) return error;
  if (auto error = check_fits(*service, prompt.ids.size(), "messages")) return error;
  watch_prompt(*service, prompt);

  engine::Request job = engine_request(*service, request.generation, std::move(prompt.ids));
  mask_calls(*service, request, job);
  if (!request.generation.stream) {
    auto session = std::make_shared<WholeChat>(service, exchange, request, prompt.reasoning_open, job.cancel, start_s);
    return generate(service, exchange, std::move(job), std::move(session));
  }
  auto session = std::make_shared<StreamedChat>(service, exchange, request, prompt.reasoning_open, job.cancel, start_s);
  if (auto error = generate(service, exchange, std::move(job), session)) return error;
  session->start();
  return std::nullopt;
}

}  // namespace nibble::serve
