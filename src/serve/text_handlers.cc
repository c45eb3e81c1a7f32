// POST /tokenize, /detokenize, /apply-template, /v1/parse: the text side of the server, without the model.
#include "serve/chat_messages.h"
#include "serve/chat_prompt.h"
#include "serve/completion_request.h"
#include "serve/field_reader.h"
#include "serve/handlers.h"
#include "serve/reply_json.h"

namespace nibble::serve {
namespace {

std::optional<ApiError> read_chunks(FieldReader& fields, std::vector<std::string>& out) {
  const Json* whole = fields.find("text");
  const Json* chunks = fields.find("chunks");
  if ((whole == nullptr) == (chunks == nullptr)) return invalid_value("text", "expected either text or chunks");
  const Json list = whole ? Json::array({*whole}) : *chunks;
  if (!list.is_array()) return invalid_value("chunks", "expected a list of strings, got " + shown(list));
  for (const Json& chunk : list) {
    if (!chunk.is_string()) {
      return invalid_value(whole ? "text" : "chunks", "expected text as strings, got " + shown(chunk));
    }
    out.push_back(chunk.get<std::string>());
  }
  return std::nullopt;
}

std::optional<ApiError> read_parser_options(FieldReader& fields, text::ParserOptions& out, bool& cut_by_length) {
  out.tools = Json::array();
  if (const Json* tools = fields.find("tools")) {
    if (auto error = read_tools(*tools, out.tools)) return error;
  }
  std::string dialect(text::name(out.dialect)), finish = "stop";
  fields.string("tool_parser", 64, dialect);
  fields.string("finish", 64, finish);
  fields.boolean("thinking_open", out.reasoning_open);
  if (fields.error()) return fields.error();
  const auto named = text::dialect_named(dialect);
  if (!named) return invalid_value("tool_parser", "expected auto, hermes, qwen3_xml or none, got " + shown(dialect));
  if (finish != "stop" && finish != "length") {
    return invalid_value("finish", "expected stop or length, got " + shown(finish));
  }
  out.dialect = *named;
  cut_by_length = finish == "length";
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> tokenize(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange) {
  Json body;
  if (auto error = parse_body(exchange->request().body, body)) return error;
  std::vector<int32_t> ids;
  if (body.contains("messages")) {
    ChatRequest request;
    ChatPrompt prompt;
    if (auto error = read_chat(*service, exchange->request().body, request)) return error;
    if (auto error = make_chat_prompt(*service, request, prompt)) return error;
    ids = std::move(prompt.ids);
  } else {
    FieldReader fields(body, "");
    bool add_special_tokens = true;  // without effect: these tokenizers add none
    fields.boolean("add_special_tokens", add_special_tokens);
    const Json* content = fields.find("content");
    if (fields.error()) return fields.error();
    if (!content || !content->is_string()) return invalid_value("content", "expected a string, or messages beside it");
    const Status status =
        service->tokenizer->encode(content->get_ref<const std::string&>(), text::AddedTokens::parse, ids);
    if (!status.ok()) return invalid_value("content", status.message());
  }
  const size_t count = ids.size();
  exchange->respond(json_response(
      {{"tokens", std::move(ids)}, {"count", count}, {"max_model_len", service->engine->info().context}}));
  return std::nullopt;
}

std::optional<ApiError> detokenize(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange) {
  Json body;
  if (auto error = parse_body(exchange->request().body, body)) return error;
  std::vector<int32_t> ids;
  if (auto error = read_token_ids(body.value("tokens", Json()), "tokens", ids)) return error;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!service->tokenizer->known(ids[i])) {
      return invalid_value(fmt::format("tokens[{}]", i), fmt::format("expected a known token id, got {}", ids[i]));
    }
  }
  exchange->respond(json_response({{"content", service->tokenizer->decode(ids)}}));
  return std::nullopt;
}

std::optional<ApiError> apply_template(const std::shared_ptr<Service>& service,
                                       const std::shared_ptr<Exchange>& exchange) {
  ChatRequest request;
  ChatPrompt prompt;
  if (auto error = read_chat(*service, exchange->request().body, request)) return error;
  if (auto error = make_chat_prompt(*service, request, prompt)) return error;
  exchange->respond(json_response(
      {{"prompt", prompt.text}, {"n_tokens", prompt.ids.size()}, {"reasoning_open", prompt.reasoning_open}}));
  return std::nullopt;
}

std::optional<ApiError> parse_reply_text(const std::shared_ptr<Service>& service,
                                         const std::shared_ptr<Exchange>& exchange) {
  Json body;
  if (auto error = parse_body(exchange->request().body, body)) return error;
  FieldReader fields(body, "");
  std::vector<std::string> chunks;
  ReplyOptions options;
  options.parser.dialect = service->options.dialect;
  bool cut_by_length = false;
  if (auto error = read_chunks(fields, chunks)) return error;
  if (auto error = read_parser_options(fields, options.parser, cut_by_length)) return error;

  Reply reply(std::move(options));
  std::vector<Delta> deltas;
  for (const std::string& chunk : chunks) reply.feed(chunk, deltas);
  reply.finish(cut_by_length, deltas);
  ReplyMessage message;
  Json delta_list = Json::array();
  for (const Delta& delta : deltas) {
    message.add(delta);
    delta_list.push_back(delta_json(delta, service->options.reasoning_field));
  }
  exchange->respond(
      json_response({{"message", message_json(message, reply.healed_calls(), service->options.reasoning_field)},
                     {"finish_reason", reply.finish_reason()},
                     {"deltas", std::move(delta_list)}}));
  return std::nullopt;
}

}  // namespace nibble::serve
