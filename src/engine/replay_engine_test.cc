#include "engine/replay_engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace nibble::engine {
namespace {

// The events of one request, with the time of each.
struct Heard {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Event> events;
  std::vector<double> at_s;

  bool finished() const { return !events.empty() && events.back().finish.has_value(); }
  void wait_events(size_t n) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return events.size() >= n; }));
  }
  const Event& wait_finish() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return finished(); }));
    return events.back();
  }
  std::string text() {
    wait_finish();
    std::string all;
    for (const Event& event : events) all += event.text;
    return all;
  }
};

class ReplayEngineTest : public testing::Test {
 protected:
  void start(std::string_view script, const ReplayOptions& options = {}) {
    auto parsed = parse_replay(script, "script");
    ASSERT_TRUE(parsed.ok()) << parsed.status().text();
    auto model = open_replay(std::move(*parsed), {}, options);
    ASSERT_TRUE(model.ok()) << model.status().text();
    model_ = std::move(*model);
  }
  Request prompt(std::string_view text) const {
    Request request;
    EXPECT_TRUE(model_.tokenizer->encode(text, text::AddedTokens::parse, request.prompt).ok());
    request.max_tokens = 100;
    return request;
  }
  std::shared_ptr<Heard> ask(Request request) {
    auto heard = std::make_shared<Heard>();
    const Status status = model_.engine->submit(std::move(request), [heard](Event event) {
      const std::lock_guard lock(heard->mutex);
      heard->events.push_back(std::move(event));
      heard->at_s.push_back(now_s());
      heard->changed.notify_all();
    });
    EXPECT_TRUE(status.ok()) << status.text();
    return heard;
  }
  std::shared_ptr<Heard> ask(std::string_view text) { return ask(prompt(text)); }
  std::string reply(std::string_view text) { return ask(text)->text(); }

  ReplayModel model_;
};

TEST_F(ReplayEngineTest, SaysTheChunksInOrder) {
  start(R"({"chunks":[{"text":"Hello"},{"text":""},{"text":" <tool_call>wörld<|im_end|>"}],"finish":"length"})");
  const auto heard = ask("Hi");
  const Event& last = heard->wait_finish();
  ASSERT_EQ(heard->events.size(), 4u);
  EXPECT_TRUE(heard->events[0].text.empty() && heard->events[0].tokens.empty());  // leaves the queue
  EXPECT_EQ(heard->events[1].text, "Hello");
  EXPECT_EQ(heard->events[1].tokens.size(), 5u);
  EXPECT_EQ(heard->events[2].text, " <tool_call>wörld<|im_end|>");
  EXPECT_EQ(heard->events[2].tokens.size(), 1u + 1 + 6 + 1);  // a token a byte, and one for each tag
  EXPECT_EQ(model_.tokenizer->decode(heard->events[2].tokens), heard->events[2].text);
  EXPECT_EQ(*last.finish, Finish::length);
  EXPECT_EQ(last.usage.prompt_tokens, 2);
  EXPECT_EQ(last.usage.completion_tokens, 14);
}

TEST_F(ReplayEngineTest, TheFirstEntryThatMatchesAnswers) {
  start(R"({"match":{"contains":["sun","Delhi"]},"chunks":[{"text":"both"}]}
           {"match":{"contains":"sun"},"chunks":[{"text":"sun"}]}
           {"match":{"contains":"<|im_start|>user"},"chunks":[{"text":"control"}]}
           {"chunks":[{"text":"any"}]})");
  EXPECT_EQ(reply("the sun over Delhi"), "both");
  EXPECT_EQ(reply("the sun over Agra"), "sun");
  EXPECT_EQ(reply("Delhi"), "any");
  EXPECT_EQ(reply("<|im_start|>user\nhi"), "control");
}

TEST_F(ReplayEngineTest, MatchesAcrossNormalForms) {
  start("{\"match\":{\"contains\":\"cafe\\u0301\"},\"chunks\":[{\"text\":\"found\"}]}");  // the accent by itself
  EXPECT_EQ(reply("a caf\u00e9"), "found");
  EXPECT_EQ(reply("a cafe\u0301"), "found");
}

TEST_F(ReplayEngineTest, EntriesAreUsedUp) {
  start(R"({"times":2,"chunks":[{"text":"twice"}]}
           {"match":{"contains":"x"},"times":1,"chunks":[{"text":"once"}]}
           {"chunks":[{"text":"always"}]})");
  EXPECT_EQ(reply("x"), "twice");
  EXPECT_EQ(reply("y"), "twice");
  EXPECT_EQ(reply("y"), "always");
  EXPECT_EQ(reply("x"), "once");
  EXPECT_EQ(reply("x"), "always");
}

TEST_F(ReplayEngineTest, AnIndexNamesTheRequest) {
  start(R"({"match":{"index":2,"contains":"x"},"chunks":[{"text":"third with x"}]}
           {"match":{"index":0},"chunks":[{"text":"first"}]}
           {"match":{"index":1},"refuse":true}
           {"chunks":[{"text":"else"}]})");
  EXPECT_EQ(reply("a"), "first");
  EXPECT_EQ(model_.engine->submit(prompt("a"), [](Event) { FAIL(); }).code(), Code::unavailable);
  EXPECT_EQ(reply("x"), "third with x");  // a refused request counts
  EXPECT_EQ(reply("x"), "else");
}

TEST_F(ReplayEngineTest, RefusesAsOftenAsToldTo) {
  start(R"({"refuse":true,"times":2}
           {"chunks":[{"text":"at last"}]})");
  for (int i = 0; i < 2; ++i) {
    const Status status = model_.engine->submit(prompt("a"), [](Event) { FAIL(); });
    EXPECT_EQ(status.text(), fmt::format("unavailable: replay: script:1 refuses request {}", i));
  }
  EXPECT_FALSE(model_.engine->running());
  EXPECT_EQ(reply("a"), "at last");
}

TEST_F(ReplayEngineTest, ARequestWithoutAnEntryIsAnError) {
  start(R"({"match":{"contains":"x"},"chunks":[]})");
  EXPECT_EQ(*ask("x")->wait_finish().finish, Finish::stop);
  const Status status = model_.engine->submit(prompt("y"), [](Event) { FAIL(); });
  EXPECT_EQ(status.text(), "not found: replay: expected an entry for request 1, got none (script)");
}

TEST_F(ReplayEngineTest, FailsAfterTheChunks) {
  start(R"({"chunks":[{"text":"Hel"}],"finish":"error"})");
  const auto heard = ask("x");
  EXPECT_EQ(heard->text(), "Hel");
  EXPECT_EQ(*heard->events.back().finish, Finish::error);
  EXPECT_EQ(heard->events.back().error.text(), "io: replay: script:1 ends with an error");
}

TEST_F(ReplayEngineTest, KeepsTheTimeline) {
  start(R"({"chunks":[{"text":"a","delay_ms":60},{"text":"b"},{"text":"c","delay_ms":60},{"text":"","delay_ms":60}]})");
  const double asked = now_s();
  const auto heard = ask("x");
  const Usage usage = heard->wait_finish().usage;
  ASSERT_EQ(heard->events.size(), 5u);
  const double tolerance = 1e-3;
  EXPECT_GE(heard->at_s[1] - asked, .06 - tolerance);
  EXPECT_GE(heard->at_s[3] - asked, .12 - tolerance);
  EXPECT_GE(heard->at_s[4] - asked, .18 - tolerance);
  EXPECT_GE(usage.prefill_ms, 59);
  EXPECT_GE(usage.decode_ms, 110);
  EXPECT_LT(usage.prefill_ms + usage.decode_ms + usage.queue_ms, (now_s() - asked) * 1e3 + 1);
}

TEST_F(ReplayEngineTest, CancelEndsADelay) {
  start(R"({"chunks":[{"text":"a"},{"text":"b","delay_ms":600000}]})");
  const Request request = prompt("x");
  const auto heard = ask(request);
  heard->wait_events(2);
  EXPECT_TRUE(model_.engine->running());
  const Stopwatch clock;
  request.cancel.cancel();
  EXPECT_EQ(*heard->wait_finish().finish, Finish::cancelled);
  EXPECT_LT(clock.ms(), 1000);
  EXPECT_EQ(heard->text(), "a");
  EXPECT_EQ(heard->events.back().usage.completion_tokens, 1);
}

TEST_F(ReplayEngineTest, ACancelledRequestYieldsOnlyItsEnd) {
  start(R"({"chunks":[{"text":"a"}]})");
  const Request request = prompt("x");
  request.cancel.cancel();
  const auto heard = ask(request);
  EXPECT_EQ(*heard->wait_finish().finish, Finish::cancelled);
  EXPECT_EQ(heard->events.size(), 1u);
}

TEST_F(ReplayEngineTest, ServesAllAtOnce) {
  start(R"({"chunks":[{"text":"a","delay_ms":200},{"text":"b","delay_ms":200}]})");
  const Stopwatch clock;
  std::vector<std::shared_ptr<Heard>> all;
  for (int i = 0; i < 64; ++i) all.push_back(ask(fmt::format("request {}", i)));
  for (const auto& heard : all) EXPECT_EQ(heard->text(), "ab");
  EXPECT_GE(clock.ms(), 399);
  EXPECT_LT(clock.ms(), 5000);  // one after the other it would be 26 s
  EXPECT_EQ(model_.engine->waiting(), 0);
}

TEST_F(ReplayEngineTest, IsBounded) {
  start(R"({"match":{"contains":"long"},"chunks":[{"text":"","delay_ms":600000}]}
           {"chunks":[]})",
        {.context = 20, .max_running = 2});
  const auto nobody = [](Event) { FAIL() << "a refused request has no events"; };
  const Request first = prompt("long"), second = prompt("long");
  const auto one = ask(first), two = ask(second);
  EXPECT_EQ(model_.engine->submit(prompt("x"), nobody).code(), Code::unavailable);
  first.cancel.cancel();
  one->wait_finish();
  Status status;
  const Stopwatch clock;
  do {  // the place is free a moment after the last event
    status = model_.engine->submit(prompt("x"), [](Event) {});
  } while (!status.ok() && clock.seconds() < 5);
  EXPECT_TRUE(status.ok()) << status.text();

  EXPECT_EQ(model_.engine->submit(prompt("twenty bytes of text"), nobody).code(), Code::invalid_argument);
  Request strange;
  EXPECT_EQ(model_.engine->submit(strange, nobody).code(), Code::invalid_argument);
  strange.prompt = {1 << 30};
  EXPECT_EQ(model_.engine->submit(strange, nobody).code(), Code::invalid_argument);
  EXPECT_EQ(model_.engine->info().context, 20);
}

TEST_F(ReplayEngineTest, DestructionCancelsWhatRuns) {
  start(R"({"chunks":[{"text":"a"},{"text":"b","delay_ms":600000}]})");
  std::vector<std::shared_ptr<Heard>> all;
  for (int i = 0; i < 8; ++i) all.push_back(ask("x"));
  const Stopwatch clock;
  model_.engine.reset();
  EXPECT_LT(clock.ms(), 1000);
  for (const auto& heard : all) {
    ASSERT_TRUE(heard->finished());
    EXPECT_EQ(*heard->events.back().finish, Finish::cancelled);
  }
}

TEST_F(ReplayEngineTest, MayBeDestroyedByItsOwnCallback) {
  start(R"({"chunks":[{"text":"a"}]})");
  auto heard = std::make_shared<Heard>();
  auto holder = std::make_shared<std::shared_ptr<Engine>>(std::move(model_.engine));
  ASSERT_TRUE((*holder)
                  ->submit(prompt("x"),
                           [heard, holder](Event event) {
                             if (event.finish) holder->reset();
                             const std::lock_guard lock(heard->mutex);
                             heard->events.push_back(std::move(event));
                             heard->changed.notify_all();
                           })
                  .ok());
  EXPECT_EQ(*heard->wait_finish().finish, Finish::stop);
}

TEST_F(ReplayEngineTest, ManyThreadsAskAndCancel) {
  start(R"({"match":{"contains":"odd"},"chunks":[{"text":"a","delay_ms":1},{"text":"b","delay_ms":600000}]}
           {"chunks":[{"text":"a","delay_ms":1},{"text":"b","delay_ms":1}]})");
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 20; ++i) {
        const Request request = prompt(i % 2 ? "odd" : "even");
        const auto heard = ask(request);
        if (i % 2) {
          heard->wait_events(2);
          request.cancel.cancel();
        }
        EXPECT_EQ(heard->text(), i % 2 ? "a" : "ab");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ReplayEngineTest, TheBuiltInTemplateIsChatMl) {
  start(R"({"chunks":[]})");
  const Json messages = Json::parse(R"([
      {"role":"system","content":"Be kind."}, {"role":"user","content":"Weather?"},
      {"role":"assistant","content":"","tool_calls":[{"function":{"name":"look","arguments":{"city":"Agra"}}}]},
      {"role":"tool","content":"sunny"}, {"role":"assistant","content":"Sunny.","reasoning_content":"I see."},
      {"role":"user","content":"Thanks"}])");
  const auto plain = model_.chat_template->render(messages, nullptr);
  ASSERT_TRUE(plain.ok()) << plain.status().text();
  EXPECT_EQ(plain->text,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n"
            "<|im_start|>assistant\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"city\": \"Agra\"}}\n"
            "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n<think>\nI see.\n</think>\n\nSunny.<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n"
            "<|im_start|>assistant\n");
  const auto quiet = model_.chat_template->render(messages, nullptr, {.kwargs = {{"enable_thinking", false}}});
  ASSERT_TRUE(quiet.ok());
  EXPECT_TRUE(quiet->text.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"));

  const text::TemplateTraits& traits = model_.chat_template->traits();
  EXPECT_EQ(traits.dialect, text::Dialect::hermes);
  EXPECT_TRUE(traits.reads_tools && traits.renders_late_system && traits.accepts_string_arguments);
  EXPECT_FALSE(traits.needs_user);
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"}) {
    EXPECT_TRUE(model_.tokenizer->added_token(token)) << token;
  }
  EXPECT_EQ(model_.tokenizer->eos(), model_.tokenizer->added_token("<|im_end|>"));
}

TEST_F(ReplayEngineTest, SpeaksWithAFoldersTokenizer) {
  auto script =
      parse_replay(R"({"match":{"contains":"Hello"},"chunks":[{"text":"What is the capital of India?"}]})", "s");
  ASSERT_TRUE(script.ok());
  auto model = open_replay(std::move(*script), NIBBLE_SOURCE_DIR "/models/tiny-voice");
  ASSERT_TRUE(model.ok()) << model.status().text();
  model_ = std::move(*model);
  const auto heard = ask("<|im_start|>user\nHello<|im_end|>\n");
  EXPECT_LT(heard->wait_finish().usage.completion_tokens, 20);
  EXPECT_FALSE(open_replay({}, "/no/such/folder").ok());
}

}  // namespace
}  // namespace nibble::engine
