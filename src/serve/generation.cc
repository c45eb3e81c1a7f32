#include "serve/generation.h"

#include "base/log.h"

namespace nibble::serve {
namespace {

class Delivery : public std::enable_shared_from_this<Delivery> {
 public:
  Delivery(std::shared_ptr<Exchange> exchange, std::shared_ptr<GenerationListener> listener)
      : exchange_(std::move(exchange)), listener_(std::move(listener)) {}

  void listen(const CancelToken& cancel) {
    exchange_->on_close([cancel] { cancel.cancel(); });
    exchange_->on_drained([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->hand_over();
    });
  }

  void take(engine::Event event) {
    if (!scheduled_) listener_->on_scheduled();
    scheduled_ = true;
    text_ += event.text;
    tokens_.insert(tokens_.end(), event.tokens.begin(), event.tokens.end());
    if (event.finish || exchange_->unsent() <= Exchange::kBufferBytes) hand_over();
    if (event.finish) listener_->on_finish(*event.finish, event.usage, event.error);
  }

 private:
  void hand_over() {
    if (text_.empty() && tokens_.empty()) return;
    const std::string text = std::exchange(text_, {});
    const std::vector<int32_t> tokens = std::exchange(tokens_, {});
    listener_->on_text(text, tokens);
  }

  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<GenerationListener> listener_;
  bool scheduled_ = false;
  std::string text_;
  std::vector<int32_t> tokens_;
};

}  // namespace

std::optional<ApiError> generate(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange,
                                 engine::Request request, std::shared_ptr<GenerationListener> listener) {
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  const auto delivery = std::make_shared<Delivery>(exchange, std::move(listener));
  // Before the engine knows of it: by the time submit returns this request may have ended and the next one of a batch
  // may listen in its place.
  delivery->listen(request.cancel);
  ++service->generating;
  const Status status = service->engine->submit(std::move(request), [service, exchange, delivery](engine::Event event) {
    const bool last = event.finish.has_value();
    exchange->post([delivery, event = std::move(event)]() mutable { delivery->take(std::move(event)); });
    if (last) --service->generating;
  });
  if (status.ok()) return std::nullopt;
  --service->generating;
  if (status.code() == Code::unavailable) return queue_full();
  if (status.code() == Code::device) return device_lost(status.message());
  if (n_prompt >= service->engine->info().context) return context_overflow(n_prompt, service->engine->info().context);
  spdlog::error("serve: the engine refused a request: {}", status.text());
  return status.code() == Code::not_found ? internal_error(status.message()) : internal_error();
}

ApiError engine_error(engine::Finish finish, const Status& error) {
  // Nobody but a closing server cancels a request whose client still listens.
  if (finish == engine::Finish::cancelled) return draining();
  if (error.code() == Code::unavailable) {
    return {.status = 503, .type = "unavailable_error", .code = "queue_timeout", .message = error.message()};
  }
  spdlog::error("serve: the engine failed: {}", error.text());
  if (error.code() == Code::device || error.code() == Code::out_of_memory) return device_lost(error.message());
  return internal_error();
}

}  // namespace nibble::serve
