#include "train/record.h"

#include <cmath>
#include <set>

#include "base/sha256.h"

namespace nibble::train {
namespace {

using Names = std::set<std::string, std::less<>>;

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string shown(const Json& value) {
  std::string text = value.dump();
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

// Reads one line; errors carry where the line is and which field is meant.
class RecordReader {
 public:
  explicit RecordReader(std::string_view where) : where_(where) {}

  Result<Record> read(const Json& line) {
    Record record;
    NIBBLE_RETURN_IF_ERROR(read_tools(line, record.tools));
    NIBBLE_RETURN_IF_ERROR(read_messages(line, record.messages));
    NIBBLE_RETURN_IF_ERROR(read_record_loss(line, record));
    if (record.messages.empty()) return bad("messages", "at least one message, got none");
    for (size_t i = 0; i < record.messages.size(); ++i) {
      float weight = 0;
      NIBBLE_RETURN_IF_ERROR(read_message(record.messages[i], fmt::format("messages[{}]", i), weight));
      record.weight.push_back(weight * record.record_weight);
    }
    read_labels(line, record);
    return record;
  }

 private:
  template <class... A>
  Status bad(std::string_view field, fmt::format_string<A...> expected, A&&... args) const {
    return corrupt("{}: {}: expected {}", where_, field, fmt::format(expected, std::forward<A>(args)...));
  }

  Status read_tools(const Json& line, Json& tools) {
    const Json* found = find(line, "tools");
    if (found == nullptr) return {};
    tools = *found;
    if (tools.is_string()) {  // LLaMA-Factory writes them as text
      const auto text = tools.get<std::string>();
      auto parsed = text.empty() ? Result<Json>(Json()) : parse_json(text, "tools");
      if (!parsed.ok()) return bad("tools", "an array, or one as text, got {}", shown(*found));
      tools = *parsed;
    }
    if (tools.is_null()) return {};
    if (!tools.is_array()) return bad("tools", "an array, got {}", tools.type_name());
    for (size_t i = 0; i < tools.size(); ++i) {
      const Json& tool = tools[i];
      const Json* function = tool.is_object() ? find(tool, "function") : nullptr;
      const Json& holder = function != nullptr ? *function : tool;
      const Json* name = holder.is_object() ? find(holder, "name") : nullptr;
      if (name == nullptr || !name->is_string()) {
        return bad(fmt::format("tools[{}]", i), "{{\"type\": \"function\", \"function\": {{\"name\": …}}}}, got {}",
                   shown(tool));
      }
      tools_.insert(name->get<std::string>());
    }
    if (tools.empty()) tools = Json();
    return {};
  }

  Status read_messages(const Json& line, Json& messages) {
    messages = Json::array();
    if (const Json* system = find(line, "system"); system != nullptr && system->is_string()) {
      if (!system->get_ref<const std::string&>().empty())
        messages.push_back({{"role", "system"}, {"content", *system}});
    }
    if (const Json* given = find(line, "messages")) return append(*given, "messages", messages);
    if (const Json* given = find(line, "conversations")) return read_sharegpt(*given, messages);
    const Json *prompt = find(line, "prompt"), *completion = find(line, "completion");
    if (prompt == nullptr || completion == nullptr) {
      return corrupt(
                 "{}: expected a conversation with \"messages\", \"conversations\" or \"prompt\" and \"completion\"",
                 where_)
          .with_hint("one JSON object a line: {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, …]}");
    }
    NIBBLE_RETURN_IF_ERROR(append_side(*prompt, "prompt", "user", messages));
    return append_side(*completion, "completion", "assistant", messages);
  }

  Status append(const Json& given, const char* field, Json& messages) {
    if (!given.is_array()) return bad(field, "an array, got {}", given.type_name());
    for (const Json& message : given) messages.push_back(message);
    return {};
  }

  Status append_side(const Json& side, const char* field, const char* role, Json& messages) {
    if (!side.is_string()) return append(side, field, messages);
    messages.push_back({{"role", role}, {"content", side}});
    return {};
  }

  Status read_sharegpt(const Json& given, Json& messages) {
    if (!given.is_array()) return bad("conversations", "an array, got {}", given.type_name());
    for (size_t i = 0; i < given.size(); ++i) {
      const std::string field = fmt::format("conversations[{}]", i);
      const Json* from = given[i].is_object() ? find(given[i], "from") : nullptr;
      const Json* value = given[i].is_object() ? find(given[i], "value") : nullptr;
      if (from == nullptr || !from->is_string() || value == nullptr) {
        return bad(field, "{{\"from\": …, \"value\": …}}, got {}", shown(given[i]));
      }
      Json message = given[i];
      message.erase("from");
      message.erase("value");
      const auto& speaker = from->get_ref<const std::string&>();
      if (speaker == "function_call") {
        if (!value->is_string()) return bad(field + ".value", "a call as text, got {}", value->type_name());
        const auto call = parse_json(value->get_ref<const std::string&>(), "call");
        if (!call.ok()) return bad(field + ".value", "a call as JSON text, got {}", shown(*value));
        message["role"] = "assistant";
        message["tool_calls"] = call->is_array() ? *call : Json::array({*call});
      } else {
        message["role"] = speaker == "human"                                           ? "user"
                          : speaker == "gpt" || speaker == "model"                     ? "assistant"
                          : speaker == "observation" || speaker == "function_response" ? "tool"
                                                                                       : speaker;
        message["content"] = *value;
      }
      messages.push_back(std::move(message));
    }
    return {};
  }

  Status read_record_loss(const Json& line, Record& record) {
    if (const Json* loss = find(line, "loss")) {
      if (!loss->is_boolean()) return bad("loss", "true or false, got {}", shown(*loss));
      if (!loss->get<bool>()) record.record_weight = 0;
    }
    if (const Json* weight = find(line, "weight")) {
      float value = 0;
      NIBBLE_RETURN_IF_ERROR(read_weight(*weight, "weight", value));
      record.record_weight *= value;
    }
    if (const Json* objective = find(line, "objective")) {
      if (*objective == "ce") {
        record.objective = Objective::ce;
      } else if (*objective == "kl") {
        record.objective = Objective::kl;
      } else if (*objective == "both") {
        record.objective = Objective::both;
      } else {
        return bad("objective", "\"ce\", \"kl\" or \"both\", got {}", shown(*objective));
      }
    }
    return {};
  }

  Status read_weight(const Json& json, const std::string& field, float& weight) {
    const double value = json.is_number() ? json.get<double>() : -1;
    if (!(value >= 0 && value <= 1e6)) return bad(field, "a number from 0 to 1e6, got {}", shown(json));
    weight = static_cast<float>(value);
    return {};
  }

  Status read_message(Json& message, const std::string& field, float& weight) {
    const Json* role = message.is_object() ? find(message, "role") : nullptr;
    if (role == nullptr || !role->is_string()) {
      return bad(field, "an object with a role, got {}", shown(message));
    }
    const auto speaker = role->get<std::string>();
    if (speaker != "system" && speaker != "developer" && speaker != "user" && speaker != "assistant" &&
        speaker != "tool") {
      return bad(field + ".role", "system, developer, user, assistant or tool, got {}", shown(*role));
    }
    const bool assistant = speaker == "assistant";
    NIBBLE_RETURN_IF_ERROR(read_content(message, field, assistant));
    if (assistant) NIBBLE_RETURN_IF_ERROR(read_assistant(message, field));
    if (speaker == "tool") NIBBLE_RETURN_IF_ERROR(read_tool_result(message, field));
    if (speaker == "user") open_calls_ = 0;
    return read_message_loss(message, field, assistant, weight);
  }

  Status read_content(Json& message, const std::string& field, bool may_lack) {
    Json& content = message["content"];  // null where there was none
    if (content.is_null() && may_lack) content = "";
    if (content.is_string()) return {};
    if (!content.is_array()) return bad(field + ".content", "text, got {}", content.type_name());
    std::string joined;
    for (const Json& part : content) {
      const Json* text = part.is_object() ? find(part, "text") : nullptr;
      if (text == nullptr || !text->is_string() || part.value("type", Json("text")) != "text") {
        return bad(field + ".content", "parts of type \"text\", got {}", shown(part));
      }
      joined += text->get_ref<const std::string&>();
    }
    content = std::move(joined);
    return {};
  }

  Status read_assistant(Json& message, const std::string& field) {
    NIBBLE_RETURN_IF_ERROR(read_reasoning(message, field));
    const Json* calls = find(message, "tool_calls");
    if (calls != nullptr && !calls->is_array()) {
      return bad(field + ".tool_calls", "an array, got {}", calls->type_name());
    }
    if (calls != nullptr) {
      Json& list = message["tool_calls"];
      for (size_t i = 0; i < list.size(); ++i) {
        NIBBLE_RETURN_IF_ERROR(read_call(list[i], fmt::format("{}.tool_calls[{}]", field, i)));
      }
      open_calls_ += list.size();
    }
    if (calls != nullptr && !calls->empty()) return {};
    open_calls_ = 0;
    if (message["content"].get_ref<const std::string&>().find_first_not_of(" \t\r\n") == std::string::npos) {
      return bad(field, "content or a tool call, got an empty assistant message");
    }
    return {};
  }

  Status read_reasoning(Json& message, const std::string& field) {
    const char* key = find(message, "reasoning_content") != nullptr ? "reasoning_content" : "reasoning";
    if (const Json* reasoning = find(message, key)) {
      if (!reasoning->is_string()) return bad(field + "." + key, "text, got {}", reasoning->type_name());
      return {};
    }
    constexpr std::string_view kOpen = "<think>", kClose = "</think>";
    const auto content = message["content"].get<std::string>();
    const size_t open = content.find_first_not_of(" \t\r\n"), close = content.find(kClose);
    if (open == std::string::npos || close == std::string::npos || content.compare(open, kOpen.size(), kOpen) != 0) {
      return {};
    }
    const auto trimmed = [](std::string_view text) {
      const size_t begin = text.find_first_not_of("\r\n"), end = text.find_last_not_of("\r\n");
      return begin == std::string_view::npos ? std::string() : std::string(text.substr(begin, end - begin + 1));
    };
    const size_t inner = open + kOpen.size();
    message["reasoning_content"] = trimmed(std::string_view(content).substr(inner, close - inner));
    const size_t rest = content.find_first_not_of("\r\n", close + kClose.size());
    message["content"] = rest == std::string::npos ? "" : content.substr(rest);
    return {};
  }

  Status read_call(Json& call, const std::string& field) {
    if (!call.is_object()) return bad(field, "an object, got {}", call.type_name());
    if (const Json* id = find(call, "id"); id != nullptr && id->is_string()) call_ids_.insert(id->get<std::string>());
    const Json* nested = find(call, "function");
    Json function = nested != nullptr ? *nested : call;
    const Json* name = function.is_object() ? find(function, "name") : nullptr;
    if (name == nullptr || !name->is_string()) return bad(field, "a function with a name, got {}", shown(call));
    if (!tools_.contains(name->get_ref<const std::string&>())) {
      if (tools_.empty()) return bad(field, "\"tools\" that define {}, got no tools", shown(*name));
      return bad(field, "one of the {} tools, got {}", tools_.size(), shown(*name));
    }
    Json arguments = function.value("arguments", Json());
    if (arguments.is_null()) arguments = Json::object();
    if (arguments.is_string()) {
      const auto& text = arguments.get_ref<const std::string&>();
      auto parsed = text.empty() ? Result<Json>(Json::object()) : parse_json(text, "arguments");
      if (!parsed.ok()) return bad(field + ".arguments", "a JSON object, got {}", shown(arguments));
      arguments = *std::move(parsed);
    }
    if (!arguments.is_object()) return bad(field + ".arguments", "an object, got {}", shown(arguments));
    function["arguments"] = std::move(arguments);
    if (nested != nullptr) {
      call["function"] = std::move(function);
    } else {
      call = {{"type", "function"}, {"function", {{"name", function["name"]}, {"arguments", function["arguments"]}}}};
    }
    return {};
  }

  Status read_tool_result(const Json& message, const std::string& field) {
    if (open_calls_ == 0) return bad(field, "a tool call before this tool message, got none");
    --open_calls_;
    const Json* id = find(message, "tool_call_id");
    if (id != nullptr && !call_ids_.empty() && (!id->is_string() || !call_ids_.contains(id->get<std::string>()))) {
      return bad(field + ".tool_call_id", "the id of a call, got {}", shown(*id));
    }
    return {};
  }

  Status read_message_loss(Json& message, const std::string& field, bool assistant, float& weight) {
    weight = assistant ? 1.0f : 0.0f;
    const Json loss = message.value("loss", Json()), given = message.value("weight", Json());
    message.erase("loss");
    message.erase("weight");
    if (!given.is_null()) {
      float value = 0;
      NIBBLE_RETURN_IF_ERROR(read_weight(given, field + ".weight", value));
      if (value > 0 && !assistant) return bad(field + ".weight", "weights on assistant messages only, got {}", value);
      weight *= value;
    }
    if (loss.is_null()) return {};
    if (!loss.is_boolean()) return bad(field + ".loss", "true or false, got {}", shown(loss));
    if (loss.get<bool>() && !assistant) {
      return bad(field + ".loss", "true on assistant messages only, got it on role {}", shown(message["role"]));
    }
    if (!loss.get<bool>()) weight = 0;
    return {};
  }

  static std::string text_of(const Json& line, const char* key) {
    const Json* meta = find(line, "meta");
    const Json* found = find(line, key);
    if (found == nullptr && meta != nullptr && meta->is_object()) found = find(*meta, key);
    if (found == nullptr) return {};
    return found->is_string() ? found->get<std::string>() : found->dump();
  }

  static void read_labels(const Json& line, Record& record) {
    record.id = text_of(line, "id");
    record.category = text_of(line, "category");
    for (const char* key : {"persona", "template", "id-group"}) {
      const std::string value = text_of(line, key);
      if (value.empty()) continue;
      record.group = fmt::format("{}={}", key, value);
      return;
    }
    Sha256 hash;
    for (const Json& message : record.messages) {
      if (message["role"] != "system" && message["role"] != "user") continue;
      hash.add(message["role"].get_ref<const std::string&>()).add(message["content"].get_ref<const std::string&>());
      if (message["role"] == "user") break;
    }
    record.group = "text=" + hash.hex();
  }

  std::string_view where_;
  Names tools_, call_ids_;
  size_t open_calls_ = 0;
};

}  // namespace

const char* name(Objective objective) {
  switch (objective) {
    case Objective::by_mode:
      return "by_mode";
    case Objective::ce:
      return "ce";
    case Objective::kl:
      return "kl";
    case Objective::both:
      return "both";
  }
  return "";
}

Result<Record> parse_record(std::string_view line, std::string_view where) {
  NIBBLE_TRY(json, parse_json(line, where));
  if (!json.is_object()) return corrupt("{}: expected a JSON object, got {}", where, json.type_name());
  return RecordReader(where).read(json);
}

std::string content_key(const Record& record) {
  return Sha256().add(record.messages.dump()).add(record.tools.dump()).hex();
}

std::string spoken_text(const Json& messages) {
  std::string text;
  const auto print = [](const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); };
  for (const Json& message : messages) {
    if (message["role"] == "system" || message["role"] == "developer") continue;
    text += message["role"].get<std::string>() + " " + message["content"].get<std::string>() + "\n";
    const Json* calls = find(message, "tool_calls");
    if (calls == nullptr || !calls->is_array()) continue;
    for (const Json& call : *calls) {
      const Json* function = find(call, "function");
      text += print(function != nullptr ? *function : call) + "\n";
    }
  }
  return text;
}

}  // namespace nibble::train
