#include "synth/teacher.h"

#include <gtest/gtest.h>

#include "tests/support/chat_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::synth {
namespace {

Question prompt(const std::string& text) {
  Question question;
  question.messages = Json::array({{{"role", "user"}, {"content", text}}});
  question.seed = 7;
  question.max_tokens = 50;
  return question;
}

Question conversation() {
  Question question = prompt("Set a timer.");
  question.messages.insert(question.messages.begin(), Json{{"role", "system"}, {"content", "You are Annie."}});
  question.tools = Json::parse(R"([{"type": "function", "function": {"name": "set_timer"}}])");
  return question;
}

std::unique_ptr<Teacher> command(const std::string& line, double answer_s = 30) {
  TeacherOptions options;
  options.command = line;
  options.answer_s = answer_s;
  return teacher_of(options).value()();
}

TEST(CommandTeacher, ReadsThePromptAndWritesTheAnswer) {
  const Attempt attempt = command("cat; echo '$(touch never)'")->ask(prompt("Write `this` \"as it is\" $HOME;\n"));
  ASSERT_TRUE(attempt.status.ok()) << attempt.status.text();
  EXPECT_EQ(attempt.answer.reply.content, "Write `this` \"as it is\" $HOME;\n$(touch never)\n");
  EXPECT_GT(attempt.answer.prompt_tokens, 0);
  EXPECT_GT(attempt.answer.completion_tokens, 0);
}

TEST(CommandTeacher, TellsFailuresApart) {
  const Attempt failed = command("echo no credit >&2; exit 3")->ask(prompt("x"));
  EXPECT_EQ(failed.status.code(), Code::unavailable);
  EXPECT_NE(failed.status.message().find("got 3: no credit"), std::string::npos);
  EXPECT_FALSE(failed.overloaded);
  EXPECT_TRUE(command("exit 75")->ask(prompt("x")).overloaded);
  EXPECT_EQ(command("sleep 20", 0.1)->ask(prompt("x")).status.code(), Code::unavailable);
}

TEST(CommandTeacher, AConversationIsTold) {
  const auto text = command_prompt(conversation());
  ASSERT_TRUE(text.ok());
  EXPECT_NE(text->find("You are Annie."), std::string::npos);
  EXPECT_NE(text->find("set_timer"), std::string::npos);
  const auto reply = [](const std::string& said) { return read_command_answer(conversation(), said); };
  EXPECT_EQ(reply(" It is set. \n").content, "It is set.");
  EXPECT_EQ(reply(R"({"content": "Done."})").content, "Done.");
  const gate::Reply call = reply(
      "```json\n{\"content\": \"\", \"tool_calls\": [{\"name\": \"set_timer\", \"arguments\": {\"minutes\": "
      "5}}]}\n```");
  ASSERT_EQ(call.calls.size(), 1U);
  EXPECT_EQ(call.calls[0].name, "set_timer");
  EXPECT_EQ(call.calls[0].arguments, R"({"minutes":5})");
  EXPECT_EQ(reply("{broken").content, "{broken");
}

TEST(UrlTeacher, AsksWithItsSettings) {
  Json body;
  nibble::test::LoopbackServer server(
      [&](const nibble::test::LoopbackRequest& request, nibble::test::LoopbackConnection& connection) {
        body = parse_json(request.body, "request").value();
        connection.send(std::string(nibble::test::kStreamHead) +
                        nibble::test::chat_events({.content = "Hi.", .reasoning = {}, .calls = {}}));
        connection.close();
      });
  TeacherOptions options;
  options.url = server.url();
  options.model = "m";
  Question question = prompt("Hello.");
  question.params = {{"temperature", 0.9}};
  const Attempt attempt = teacher_of(options).value()()->ask(question);
  ASSERT_TRUE(attempt.status.ok()) << attempt.status.text();
  EXPECT_EQ(attempt.answer.reply.content, "Hi.");
  EXPECT_EQ(attempt.answer.prompt_tokens, 9);
  EXPECT_EQ(attempt.answer.completion_tokens, 5);
  EXPECT_EQ(body["model"], "m");
  EXPECT_EQ(body["seed"], 7);
  EXPECT_EQ(body["max_tokens"], 50);
  EXPECT_EQ(body["temperature"], 0.9);
}

TEST(UrlTeacher, AnOverloadedServerSaysSo) {
  nibble::test::LoopbackServer server(
      [&](const nibble::test::LoopbackRequest&, nibble::test::LoopbackConnection& connection) {
        connection.reply(429, R"({"error": {"message": "later"}})", "Retry-After: 9\r\n");
      });
  TeacherOptions options;
  options.url = server.url();
  options.model = "m";
  const Attempt attempt = teacher_of(options).value()()->ask(prompt("Hello."));
  EXPECT_TRUE(attempt.overloaded);
  EXPECT_DOUBLE_EQ(attempt.retry_after_s, 9);
  EXPECT_EQ(server.requests(), 1);
}

TEST(Teacher, IsAServerOrACommand) {
  EXPECT_FALSE(teacher_of({}).ok());
  TeacherOptions both;
  both.url = "http://x";
  both.command = "cat";
  EXPECT_FALSE(teacher_of(both).ok());
}

}  // namespace
}  // namespace nibble::synth
