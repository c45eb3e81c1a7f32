// The schema of requests: every field with values that are allowed and values that are not.
#include <gtest/gtest.h>

#include "serve/chat_request.h"
#include "serve/completion_request.h"
#include "serve/field_reader.h"

namespace nibble::serve {
namespace {

// A minimal body with `fields` ("\"a\": 1, …") added.
std::string chat_body(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"Hi"}])" + (fields.empty() ? "" : "," + fields) + "}";
}

std::optional<ApiError> read_chat_text(const std::string& text, ChatRequest& request) {
  Json body;
  if (auto error = parse_body(text, body)) return error;
  return read_chat_request(body, request);
}

ChatRequest good_chat(const std::string& fields) {
  ChatRequest request;
  const auto error = read_chat_text(chat_body(fields), request);
  EXPECT_FALSE(error) << fields << ": " << error->message;
  return request;
}

std::string bad_param(const std::string& text) {
  ChatRequest request;
  const auto error = read_chat_text(text, request);
  if (!error) return "no error";
  EXPECT_EQ(error->status, 400);
  EXPECT_FALSE(error->message.empty());
  return error->param.value_or("none");
}

struct FieldCase {
  const char* name;
  std::vector<const char*> good, bad;
  const char* bad_at = nullptr;  // the param of the error, if not the name
};

const std::vector<FieldCase> kGenerationFields = {
    {"model", {R"("m")", R"("")"}, {"1", "[]", "{}"}},
    {"stream", {"true", "false"}, {"0", R"("true")"}},
    {"stream_options", {"{}", R"({"include_usage":true,"include_obfuscation":false,"x":1})"}, {"true", "[]"}},
    {"stream_options", {R"({"include_usage":null})"}, {R"({"include_usage":1})"}, "stream_options.include_usage"},
    {"temperature", {"0", "2", "0.7", "2.0"}, {"-0.1", "2.01", R"("1")", "true", "[]", "-1e300"}},
    {"top_p", {"1", "0.0001"}, {"0", "1.1", "-1"}},
    {"top_k", {"0", "1", "2147483647", "40.0"}, {"-1", "1.5", "2147483648", "9223372036854775808", R"("4")"}},
    {"min_p", {"0", "1"}, {"-0.1", "1.1"}},
    {"presence_penalty", {"-2", "2"}, {"-2.1", "3"}},
    {"frequency_penalty", {"-2", "2"}, {"-2.1", "3"}},
    {"repetition_penalty", {"0.1", "10"}, {"0", "10.5", "-1"}},
    {"seed", {"0", "-9223372036854775808", "9223372036854775807"}, {"9223372036854775808", "0.5", R"("1")"}},
    {"max_tokens", {"1", "9223372036854775807"}, {"0", "-1", "1.5", "9223372036854775808", "1e300"}},
    {"max_completion_tokens", {"1"}, {"0", "-5", "[]"}},
    {"min_tokens", {"0", "5"}, {"-1", "0.1"}},
    {"ignore_eos", {"true"}, {"1"}},
    {"stop_token_ids", {"[]", "[0, 2147483647]"}, {"1", "[-1]", "[2147483648]", "[1.5]", R"(["1"])"}},
    {"stop", {R"("a")", R"(["a","b"])", "[]"}, {R"("")", R"([""])", "1", "[1]", "{}"}},
    {"include_stop_str_in_output", {"true"}, {"1"}},
    {"n", {"1"}, {"0", "2", "8", "9", "1000000", "-1", R"("1")"}},
    {"logit_bias", {"{}"}, {R"({"5":1})", "[]", "1"}},
    {"thinking_token_budget", {}, {"5"}},
    {"guided_json", {}, {"{}"}},
    {"guided_regex", {}, {R"("a")"}},
};

const std::vector<FieldCase> kChatFields = {
    {"tools",
     {"[]", R"([{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object"}}}])"},
     {"{}", "1"}},
    {"tools", {}, {"[1]", R"(["f"])"}, "tools[0]"},
    {"tools", {}, {R"([{"function":{"name":"f"}}])", R"([{"type":"web"}])"}, "tools[0].type"},
    {"tools", {}, {R"([{"type":"function"}])", R"([{"type":"function","function":3}])"}, "tools[0].function"},
    {"tools",
     {},
     {R"([{"type":"function","function":{}}])", R"([{"type":"function","function":{"name":""}}])"},
     "tools[0].function.name"},
    {"tools",
     {R"([{"type":"function","function":{"name":"f","parameters":null}}])"},
     {R"([{"type":"function","function":{"name":"f","parameters":[]}}])"},
     "tools[0].function.parameters"},
    {"tool_choice",
     {R"("auto")", R"("none")"},
     {R"("required")", R"("any")", R"({"type":"function","function":{"name":"f"}})", "1"}},
    {"parallel_tool_calls", {"true", "false"}, {"1"}},
    {"response_format",
     {R"({"type":"text"})"},
     {R"("text")", R"({"type":"json_object"})", R"({"type":"json_schema","json_schema":{}})"}},
    {"response_format", {}, {"{}", R"({"type":"xml"})", R"({"type":1})"}, "response_format.type"},
    {"logprobs", {"false"}, {"true", "1"}},
    {"top_logprobs", {"0"}, {"1", "20", "21", "-1"}},
    {"chat_template_kwargs", {"{}", R"({"enable_thinking":false,"unread":[1]})"}, {"[]", "true"}},
    {"chat_template_kwargs", {}, {R"({"messages":[]})"}, "chat_template_kwargs.messages"},
    {"chat_template_kwargs", {}, {R"({"add_generation_prompt":false})"}, "chat_template_kwargs.add_generation_prompt"},
    {"reasoning_effort", {R"("none")", R"("minimal")", R"("low")", R"("medium")", R"("high")"}, {R"("max")", "1"}},
    {"include_reasoning", {"false"}, {"0"}},
    {"add_generation_prompt", {"true", "false"}, {"1"}},
    {"continue_final_message", {"false"}, {"true", "1"}},
    {"functions", {}, {"[]"}},
    {"function_call", {}, {R"("auto")"}},
    {"user", {R"("u")", "1", "{}"}, {}},
    {"metadata", {"{}"}, {}},
    {"prediction", {"{}"}, {}},
    {"some_field_of_tomorrow", {"1", "{}"}, {}},
};

void check_chat_fields(const std::vector<FieldCase>& cases) {
  for (const FieldCase& c : cases) {
    for (const char* value : c.good) good_chat(fmt::format("\"{}\":{}", c.name, value));
    good_chat(fmt::format("\"{}\":null", c.name));
    for (const char* value : c.bad) {
      EXPECT_EQ(bad_param(chat_body(fmt::format("\"{}\":{}", c.name, value))), c.bad_at ? c.bad_at : c.name) << value;
    }
  }
}

TEST(ChatRequest, ChecksEveryField) {
  check_chat_fields(kGenerationFields);
  check_chat_fields(kChatFields);
}

TEST(ChatRequest, NamesWhatIsNotSupportedYet) {
  for (const char* field : {R"("n":2)", R"("logprobs":true)", R"("top_logprobs":3)", R"("logit_bias":{"1":2})",
                            R"("response_format":{"type":"json_object"})", R"("tool_choice":"required")",
                            R"("tool_choice":{"type":"function","function":{"name":"f"}})"}) {
    ChatRequest request;
    const auto error = read_chat_text(chat_body(field), request);
    ASSERT_TRUE(error) << field;
    EXPECT_NE(error->message.find("not supported yet"), std::string::npos) << error->message;
    EXPECT_NE(std::string(field).find(*error->param), std::string::npos) << error->message;
  }
}

TEST(ChatRequest, KeepsWhatItRead) {
  const ChatRequest r = good_chat(R"("max_tokens":50,"max_completion_tokens":20,"seed":-1,"top_k":3,
      "stop":"END","tool_choice":"none","reasoning_effort":"none","stream":true,
      "stream_options":{"include_usage":true},"one":1,"two":2)");
  EXPECT_EQ(r.generation.max_tokens, 20);
  EXPECT_EQ(r.generation.seed, -1);
  EXPECT_EQ(r.generation.top_k, 3);
  EXPECT_EQ(r.generation.stop, std::vector<std::string>{"END"});
  EXPECT_TRUE(r.generation.stream && r.generation.include_usage);
  EXPECT_FALSE(r.calls_allowed);
  EXPECT_EQ(r.thinking, false);
  EXPECT_EQ(r.unknown_fields, (std::vector<std::string>{"one", "two"}));
}

TEST(ChatRequest, BoundsListsAndStrings) {
  const auto list = [](size_t n, const std::string& item) {
    std::string text = "[";
    for (size_t i = 0; i < n; ++i) text += (i ? "," : "") + item;
    return text + "]";
  };
  const std::string message = R"({"role":"user","content":"x"})";
  const std::string tool = R"({"type":"function","function":{"name":"f"}})";
  good_chat("\"stop\":" + list(16, "\"s\""));
  EXPECT_EQ(bad_param(chat_body("\"stop\":" + list(17, "\"s\""))), "stop");
  good_chat("\"stop\":\"" + std::string(256, 's') + "\"");
  EXPECT_EQ(bad_param(chat_body("\"stop\":\"" + std::string(257, 's') + "\"")), "stop");
  good_chat("\"tools\":" + list(128, tool));
  EXPECT_EQ(bad_param(chat_body("\"tools\":" + list(129, tool))), "tools");
  const std::string large =
      R"([{"type":"function","function":{"name":"f","description":")" + std::string(size_t{256} << 10, 'd') + "\"}}]";
  EXPECT_EQ(bad_param(chat_body("\"tools\":" + large)), "tools");
  ChatRequest request;
  EXPECT_FALSE(read_chat_text("{\"messages\":" + list(2048, message) + "}", request));
  EXPECT_EQ(bad_param("{\"messages\":" + list(2049, message) + "}"), "messages");
}

TEST(ChatRequest, RefusesBrokenBodies) {
  for (const std::string& body :
       {std::string(""), std::string("{"), std::string("[]"), std::string("1"), std::string("null"),
        std::string("{\"a\":1,\"a\":2}"), std::string("{\"temperature\":1e400}"), std::string("{\"a\":\"\xff\"}"),
        std::string(65, '[') + std::string(65, ']'), std::string("{\"a\":\"\\ud800\"}"), std::string("{}x")}) {
    ChatRequest request;
    const auto error = read_chat_text(body, request);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, std::nullopt);
  }
  std::string wide = "{";
  for (int i = 0; i < 2000; ++i) wide += fmt::format("\"k{}\":1,", i);
  Json body;
  EXPECT_TRUE(parse_body(wide + "\"z\":1}", body));
}

TEST(ChatMessages, NamesWhatIsWrongWithThem) {
  const struct {
    const char *messages, *param;
  } cases[] = {
      {"null", "messages"},
      {"[]", "messages"},
      {R"("hi")", "messages"},
      {"[1]", "messages[0]"},
      {"[{}]", "messages[0].role"},
      {R"([{"role":"user","content":"a"},{"role":"robot"}])", "messages[1].role"},
      {R"([{"role":1}])", "messages[0].role"},
      {R"([{"role":"user","content":1}])", "messages[0].content"},
      {R"([{"role":"user","content":{"type":"text"}}])", "messages[0].content"},
      {R"([{"role":"user","content":["a"]}])", "messages[0].content[0]"},
      {R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}])",
       "messages[0].content[1].type"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
      {R"([{"role":"user","content":[{"type":"text","text":5}]}])", "messages[0].content[0].text"},
      {R"([{"role":"assistant","tool_calls":{}}])", "messages[0].tool_calls"},
      {R"([{"role":"assistant","tool_calls":[1]}])", "messages[0].tool_calls[0]"},
      {R"([{"role":"assistant","tool_calls":[{"type":"x"}]}])", "messages[0].tool_calls[0].type"},
      {R"([{"role":"assistant","tool_calls":[{"id":"a"}]}])", "messages[0].tool_calls[0].function"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}])",
       "messages[0].tool_calls[0].function.name"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":[]}}]}])",
       "messages[0].tool_calls[0].function.arguments"},
      {R"([{"role":"assistant","function_call":{}}])", "messages[0].function_call"},
      {R"([{"role":"tool","tool_call_id":4}])", "messages[0].tool_call_id"},
  };
  for (const auto& c : cases) EXPECT_EQ(bad_param(fmt::format("{{\"messages\":{}}}", c.messages)), c.param);
}

TEST(ChatMessages, OtherContentThanTextIsUnsupportedContent) {
  ChatRequest request;
  const auto error = read_chat_text(
      R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]})", request);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "unsupported_content");
}

TEST(ChatMessages, BringsContentToOneString) {
  ChatRequest request;
  const auto error = read_chat_text(R"({"messages":[
      {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"x"},
      {"role":"user","content":null},
      {"role":"assistant","content":null,"reasoning":"why","refusal":null,
       "tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},
      {"role":"tool","tool_call_id":"c1","content":[]},
      {"role":"assistant","tool_calls":null,"content":"done"}]})",
                                    request);
  ASSERT_FALSE(error) << error->message;
  EXPECT_EQ(request.messages, Json::parse(R"([
      {"role":"developer","content":"ab","name":"x"},
      {"role":"user","content":""},
      {"role":"assistant","content":"","reasoning_content":"why",
       "tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},
      {"role":"tool","content":"","tool_call_id":"c1"},
      {"role":"assistant","content":"done"}])"));
}

std::string bad_completion_param(const std::string& text) {
  Json body;
  CompletionRequest request;
  auto error = parse_body(text, body);
  if (!error) error = read_completion_request(body, request);
  return error ? error->param.value_or("none") : "no error";
}

TEST(CompletionRequest, ChecksEveryField) {
  std::vector<FieldCase> cases = kGenerationFields;
  cases.push_back({"echo", {"false"}, {"true", "1"}});
  cases.push_back({"best_of", {"1"}, {"2", "0", "1.5"}});
  cases.push_back({"logprobs", {}, {"0", "5", "6", "true"}});
  cases.push_back({"suffix", {R"("")"}, {R"("x")", "1"}});
  cases.push_back({"response_format", {}, {"{}"}});
  for (const FieldCase& c : cases) {
    const auto body = [&](const char* value) { return fmt::format(R"({{"prompt":"x","{}":{}}})", c.name, value); };
    for (const char* value : c.good) EXPECT_EQ(bad_completion_param(body(value)), "no error") << body(value);
    EXPECT_EQ(bad_completion_param(body("null")), "no error") << c.name;
    for (const char* value : c.bad) {
      EXPECT_EQ(bad_completion_param(body(value)), c.bad_at ? c.bad_at : c.name) << value;
    }
  }
}

TEST(CompletionRequest, TakesPromptsInFourForms) {
  const auto read = [](const char* prompt) {
    CompletionRequest request;
    const auto error = read_completion_request(Json::parse(fmt::format("{{\"prompt\":{}}}", prompt)), request);
    EXPECT_FALSE(error) << prompt << ": " << error->message;
    return request.prompts;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(read(R"("a")"), (std::vector<CompletionPrompt>{"a"}));
  EXPECT_EQ(read("[1, 2]"), (std::vector<CompletionPrompt>{Ids{1, 2}}));
  EXPECT_EQ(read(R"(["a", "b"])"), (std::vector<CompletionPrompt>{"a", "b"}));
  EXPECT_EQ(read(R"([[1], "b"])"), (std::vector<CompletionPrompt>{Ids{1}, "b"}));
  for (const char* bad : {"null", "[]", "1", "{}", "true"}) {
    EXPECT_EQ(bad_completion_param(fmt::format("{{\"prompt\":{}}}", bad)), "prompt") << bad;
  }
  EXPECT_EQ(bad_completion_param(R"({"prompt":[1,"a"]})"), "prompt[1]");
  EXPECT_EQ(bad_completion_param(R"({"prompt":["a",1]})"), "prompt[1]");
  EXPECT_EQ(bad_completion_param(R"({"prompt":[[1,-2]]})"), "prompt[0][1]");
  EXPECT_EQ(bad_completion_param(Json{{"prompt", std::vector<std::string>(65, "a")}}.dump()), "prompt");
  EXPECT_EQ(bad_completion_param(Json{{"prompt", std::vector<std::string>(64, "a")}}.dump()), "no error");
}

TEST(GenerationOptions, RequestValuesWinOverTheModels) {
  GenerationOptions options;
  options.temperature = 0.0f;
  options.seed = -1;
  engine::Sampling defaults;
  defaults.top_p = 0.9f;
  defaults.top_k = 20;
  const engine::Sampling s = sampling_of(options, defaults);
  EXPECT_EQ(s.temperature, 0.0f);
  EXPECT_EQ(s.top_p, 0.9f);
  EXPECT_EQ(s.top_k, 20);
  EXPECT_EQ(s.seed, ~uint64_t{0});
}

TEST(GenerationOptions, BudgetIsClippedToTheContext) {
  GenerationOptions options;
  EXPECT_EQ(token_budget(options, 0, 30, 100), 70);
  EXPECT_EQ(token_budget(options, 16, 30, 100), 16);
  options.max_tokens = 1000;
  EXPECT_EQ(token_budget(options, 16, 30, 100), 70);
  options.max_tokens = 5;
  EXPECT_EQ(token_budget(options, 16, 30, 100), 5);
}

}  // namespace
}  // namespace nibble::serve
