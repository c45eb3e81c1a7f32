// One run of the engine on behalf of an Exchange: its events come on the io thread, and the peer's leaving cancels it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/errors.h"
#include "serve/service.h"

namespace nibble::serve {

/// Who hears of it; on the io thread only. Kept alive by the engine until on_finish. After the peer has left nothing
/// needs to be said, but on_finish still comes.
class GenerationListener {
 public:
  virtual ~GenerationListener() = default;
  /// The engine has begun; comes before everything else, and once.
  virtual void on_scheduled() = 0;
  /// New text and the tokens it came from. A peer that reads slowly gets more text at a time: while
  /// Exchange::kBufferBytes are unsent, text is collected here and no chunk is made of it.
  virtual void on_text(const std::string& text, const std::vector<int32_t>& tokens) = 0;
  virtual void on_finish(engine::Finish finish, const engine::Usage& usage, const Status& error) = 0;
};

/// Queues the request, from any thread. On an error the listener hears nothing: queue_full, context_overflow,
/// device_lost, internal (with the cause where a replay has no reply for the request).
std::optional<ApiError> generate(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange,
                                 engine::Request request, std::shared_ptr<GenerationListener> listener);

/// The error that a client sees for an engine's Finish::error or Finish::cancelled.
ApiError engine_error(engine::Finish finish, const Status& error);

}  // namespace nibble::serve
