#include "text/chat_data.h"

#include "io/jsonl.h"
#include "text/chat_encode.h"
#include "text/chat_normalise.h"

namespace nibble::text {

Result<std::vector<std::vector<int32_t>>> tokenize_chats(const Path& file, const ChatTemplate& chat_template,
                                                         const Tokenizer& tokenizer, int64_t limit,
                                                         int64_t max_tokens) {
  std::vector<std::vector<int32_t>> chats;
  const auto read_chat = [&](Json& chat, int64_t line) -> Status {
    if (limit > 0 && static_cast<int64_t>(chats.size()) == limit) return {};
    if (!chat.contains("messages") || !chat["messages"].is_array()) {
      return corrupt("{}:{}: expected a conversation with \"messages\"", file.string(), line)
          .with_hint("one JSON object a line: {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, …]}");
    }
    NIBBLE_TRY(messages, normalise_messages(chat["messages"], chat_template));
    const Json tools = chat.contains("tools") ? normalise_tools(chat["tools"]) : Json();
    auto rendered = chat_template.render(messages, tools, {.add_generation_prompt = false});
    if (!rendered.ok()) return corrupt("{}:{}: {}", file.string(), line, rendered.status().message());
    std::vector<int32_t>& ids = chats.emplace_back();
    NIBBLE_RETURN_IF_ERROR(encode_rendered(tokenizer, *rendered, false, ids));
    if (max_tokens > 0 && static_cast<int64_t>(ids.size()) > max_tokens) ids.resize(static_cast<size_t>(max_tokens));
    return {};
  };
  NIBBLE_RETURN_IF_ERROR(for_each_json_line(file, read_chat));
  if (chats.empty()) return invalid_argument("{}: expected conversations, got an empty file", file.string());
  return chats;
}

}  // namespace nibble::text
