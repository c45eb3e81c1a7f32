#include "serve/sse_writer.h"

#include "base/clock.h"

namespace nibble::serve {

std::string sse_event(const Json& json) {
  return "data: " + dump(json) + "\n\n";
}

SseWriter::SseWriter(std::shared_ptr<Exchange> exchange, double ping_s)
    : exchange_(std::move(exchange)), ping_s_(ping_s) {}

void SseWriter::start(double open_after_s) {
  exchange_->after(open_after_s, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->open();
  });
}

void SseWriter::open() {
  if (open_ || ended_) return;
  open_ = true;
  last_write_s_ = now_s();
  exchange_->begin({200,
                    {{"Content-Type", "text/event-stream; charset=utf-8"},
                     {"Cache-Control", "no-cache"},
                     {"X-Accel-Buffering", "no"}},
                    ""});
  watch();
}

void SseWriter::watch() {
  const double silent_s = now_s() - last_write_s_;
  if (silent_s >= ping_s_) send(": ping\n\n");
  const double wait_s = ping_s_ - (now_s() - last_write_s_);
  exchange_->after(wait_s, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self && !self->ended_ && !self->exchange_->closed()) self->watch();
  });
}

void SseWriter::send(std::string events) {
  if (ended_) return;
  open();
  last_write_s_ = now_s();
  exchange_->write(std::move(events));
}

void SseWriter::done() {
  send("data: [DONE]\n\n");
  ended_ = true;
  exchange_->end();
}

void SseWriter::fail(const ApiError& error) {
  if (ended_) return;
  if (open_) {
    exchange_->write(sse_event(error.json()));
    exchange_->end();
  } else {
    exchange_->respond(error.response());
  }
  ended_ = true;
}

}  // namespace nibble::serve
