// A server that knows what its model was trained to be asked with: it warns, once, and serves all the same.
#include "base/sha256.h"
#include "tests/support/log_capture.h"
#include "tests/support/server_test.h"

namespace nibble::serve {
namespace {

constexpr const char* kChat = "/v1/chat/completions";

text::PromptLock lock_of(const std::string& system_prompt, std::optional<bool> thinking) {
  text::PromptLock lock;
  lock.template_hash = sha256_of(tiny_template()->source());
  lock.system_prompts = {{sha256_of(system_prompt)}};
  lock.tools = {{sha256_of("")}};
  lock.thinking = thinking;
  return lock;
}

class PromptLockTest : public ServerTest {
 protected:
  // The whole log of what these requests bring about.
  void ask(const std::string& system, Json more = Json::object()) {
    Json body = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}}};
    if (!system.empty()) {
      body["messages"] = {{{"role", "developer"}, {"content", system}}, {{"role", "user"}, {"content", "Hello"}}};
    }
    body.update(more);
    const net::HttpResponse response = post(kChat, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
  }
  // The prompt that a request without a word about thinking gets.
  std::string default_prompt() {
    const net::HttpResponse response =
        post("/apply-template", R"({"messages": [{"role": "user", "content": "Hello"}]})");
    return Json::parse(response.body)["prompt"];
  }

  test::LogCapture log_;
};

TEST_F(PromptLockTest, TheTrainedPromptIsNoNews) {
  start({.prompt_lock = lock_of("You are Annie.", false)});
  ask("You are Annie.");
  ask("You are Annie.", {{"stream", true}});
  EXPECT_EQ(log_.text().find("warning"), std::string::npos) << log_.text();
}

TEST_F(PromptLockTest, AnotherSystemPromptIsToldOnce) {
  start({.prompt_lock = lock_of("You are Annie.", false)});
  for (int i = 0; i < 3; ++i) ask("You are Eve.");
  EXPECT_EQ(log_.count("warning serve: the system prompt (sha256 " + sha256_of("You are Eve.").substr(0, 12)), 1)
      << log_.text();
  ask("You are Ada.");
  ask("");
  EXPECT_EQ(log_.count("warning"), 3) << log_.text();
  EXPECT_EQ(log_.text().find("You are"), std::string::npos) << "the log holds no prompts";
}

TEST_F(PromptLockTest, ToolsAndThinkingAreComparedToo) {
  start({.prompt_lock = lock_of("", false)});
  const Json tool = {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"type", "object"}}}}}};
  ask("", {{"tools", {tool}}});
  EXPECT_EQ(log_.count("warning serve: the tools (sha256 "), 1) << log_.text();
  ask("", {{"chat_template_kwargs", {{"enable_thinking", true}}}});
  EXPECT_EQ(log_.count("warning serve: thinking is on, but the model was trained with it off"), 1) << log_.text();
}

TEST_F(PromptLockTest, AnotherTemplateIsToldAtTheStart) {
  text::PromptLock lock = lock_of("", false);
  lock.template_hash = sha256_of("another");
  start({.prompt_lock = lock});
  EXPECT_EQ(log_.count("warning serve: the chat template (sha256 "), 1) << log_.text();
}

TEST_F(PromptLockTest, ThinkingIsAsTrainedUnlessSomebodySays) {
  start({.prompt_lock = lock_of("", true)});
  const std::string on = default_prompt();
  EXPECT_NE(get("/v1/models").body.find(R"("thinking_default":"on")"), std::string::npos);
  start({.prompt_lock = lock_of("", false)});
  const std::string off = default_prompt();
  EXPECT_NE(on, off);
  start({.thinking = Thinking::on, .prompt_lock = lock_of("", false)});
  EXPECT_EQ(default_prompt(), on);
  start({.thinking = Thinking::automatic, .prompt_lock = lock_of("", true)});
  const std::string automatic = default_prompt();
  start();
  EXPECT_EQ(default_prompt(), automatic);
  EXPECT_NE(get("/v1/models").body.find(R"("thinking_default":"auto")"), std::string::npos);
}

}  // namespace
}  // namespace nibble::serve
