#include "serve/service.h"

#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "serve/errors.h"
#include "serve/ids.h"

namespace nibble::serve {

void UnknownFields::add(const std::vector<std::string>& names) {
  constexpr size_t kMaxNames = 1000, kMaxNameBytes = 64;
  count_ += static_cast<int64_t>(names.size());
  const std::lock_guard lock(mutex_);
  for (const std::string& name : names) {
    if (names_.size() >= kMaxNames) return;
    const std::string cut = name.substr(0, kMaxNameBytes);
    // As JSON, so that no name can break or colour a log line.
    if (names_.insert(cut).second) spdlog::info("serve: ignoring the unknown request field {}", dump(cut));
  }
}

bool Service::serves(const std::string& model) const {
  return model.empty() || options.any_model || model == options.model_id ||
         std::ranges::find(options.aliases, model) != options.aliases.end();
}

ReplyHead Service::new_reply(std::string_view id_prefix) const {
  return {make_id(id_prefix), static_cast<int64_t>(std::time(nullptr)), options.model_id, fingerprint};
}

}  // namespace nibble::serve
