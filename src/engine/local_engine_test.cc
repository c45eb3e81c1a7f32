#include "engine/local_engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "base/clock.h"
#include "io/jsonl.h"

namespace nibble::engine {
namespace {

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

// Collects the events of one request; its callback may outlive the test's interest.
struct Collector {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Event> events;

  static Callback into(const std::shared_ptr<Collector>& collector) {
    return [collector](Event event) {
      {
        std::lock_guard lock(collector->mutex);
        collector->events.push_back(std::move(event));
      }
      collector->changed.notify_all();
    };
  }
  bool finished() const { return !events.empty() && events.back().finish.has_value(); }
  void wait_events(size_t n) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return events.size() >= n || finished(); }));
  }
  const Event& wait_finish() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return finished(); }));
    return events.back();
  }
  std::string text() const {
    std::string all;
    for (const Event& event : events) all += event.text;
    return all;
  }
  std::vector<int32_t> ids() const {
    std::vector<int32_t> all;
    for (const Event& event : events) all.insert(all.end(), event.tokens.begin(), event.tokens.end());
    return all;
  }
};

class LocalEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = std::make_shared<checkpoint::LoadedModel>(std::move(checkpoint::load_checkpoint(kTinyVoice, {})).value());
    tokenizer_ = std::make_shared<text::Tokenizer>(std::move(text::Tokenizer::load(kTinyVoice)).value());
  }
  static void TearDownTestSuite() {
    model_.reset();
    tokenizer_.reset();
  }

  static std::shared_ptr<Engine> start(EngineOptions options = {}) {
    options.threads = 2;
    return std::move(start_engine(model_, tokenizer_, options)).value();
  }
  static Request greedy(std::string_view prompt, int64_t max_tokens = 80) {
    Request request;
    EXPECT_TRUE(tokenizer_->encode(prompt, text::AddedTokens::parse, request.prompt).ok());
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    return request;
  }
  // A reply that only the token limit ends.
  static Request endless(int64_t max_tokens = 4000) {
    Request request = greedy("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", max_tokens);
    request.ignore_eos = true;
    return request;
  }

  static std::shared_ptr<checkpoint::LoadedModel> model_;
  static std::shared_ptr<text::Tokenizer> tokenizer_;
};
std::shared_ptr<checkpoint::LoadedModel> LocalEngineTest::model_;
std::shared_ptr<text::Tokenizer> LocalEngineTest::tokenizer_;

TEST_F(LocalEngineTest, SpeaksTheGoldenReplies) {
  const auto engine = start({.numeric = Numeric::exact});
  int seen = 0;
  ASSERT_TRUE(for_each_json_line(NIBBLE_SOURCE_DIR "/tests/golden/tiny-voice/greedy.jsonl", [&](Json& line, int64_t) {
                if (++seen > 20) return Status();
                auto collector = std::make_shared<Collector>();
                EXPECT_TRUE(engine->submit(greedy(line["prompt"].get<std::string>()), Collector::into(collector)).ok());
                const Event& last = collector->wait_finish();
                auto ids = line["greedy_ids"].get<std::vector<int32_t>>();
                const bool stopped = ids.back() == 1556;
                EXPECT_EQ(*last.finish, stopped ? Finish::stop : Finish::length);
                EXPECT_EQ(last.usage.completion_tokens, static_cast<int64_t>(ids.size()));
                if (stopped) ids.pop_back();
                EXPECT_EQ(collector->ids(), ids);
                std::string text = line["greedy_text"].get<std::string>();
                if (text.ends_with("<|im_end|>")) text.resize(text.size() - 10);
                EXPECT_EQ(collector->text(), text);
                return Status();
              }).ok());
}

TEST_F(LocalEngineTest, RepliesSpokenTogetherAreThoseSpokenAlone) {
  std::vector<Request> requests;
  ASSERT_TRUE(for_each_json_line(NIBBLE_SOURCE_DIR "/tests/golden/tiny-voice/greedy.jsonl", [&](Json& line, int64_t) {
                if (requests.size() == 8) return Status();
                Request request = greedy(line["prompt"].get<std::string>(), 24);
                if (requests.size() % 2 == 1) {  // others are drawn, and some may not stop at once
                  request.sampling = {.temperature = 0.8f, .top_k = 20, .seed = requests.size()};
                  request.min_tokens = 5;
                }
                requests.push_back(std::move(request));
                return Status();
              }).ok());
  const auto speak = [&](int64_t slots) {
    const auto engine = start({.slots = slots});
    std::vector<std::shared_ptr<Collector>> collectors;
    for (const Request& request : requests) {
      collectors.push_back(std::make_shared<Collector>());
      EXPECT_TRUE(engine->submit(request, Collector::into(collectors.back())).ok());
    }
    std::vector<std::vector<int32_t>> replies;
    for (const auto& collector : collectors) {
      EXPECT_NE(*collector->wait_finish().finish, Finish::error);
      replies.push_back(collector->ids());
    }
    return replies;
  };
  const auto alone = speak(1);
  EXPECT_EQ(speak(3), alone);
  EXPECT_EQ(speak(8), alone);
  EXPECT_EQ(start_engine(model_, tokenizer_, {.slots = 65}).status().code(), Code::invalid_argument);
}

TEST_F(LocalEngineTest, RefusesWhatDoesNotFit) {
  const auto engine = start({.context = 32});
  const auto nobody = [](Event) { FAIL() << "a refused request has no events"; };
  Request request = greedy("Hello");
  request.prompt.assign(32, 1);
  EXPECT_EQ(engine->submit(request, nobody).code(), Code::invalid_argument);
  request.prompt = {2048};
  EXPECT_EQ(engine->submit(request, nobody).code(), Code::invalid_argument);
  request.prompt = {};
  EXPECT_EQ(engine->submit(request, nobody).code(), Code::invalid_argument);
  EXPECT_EQ(start_engine(model_, tokenizer_, {.context = 1 << 20}).status().code(), Code::invalid_argument);
}

TEST_F(LocalEngineTest, TheContextEndsAReply) {
  const auto engine = start({.context = 40});
  auto collector = std::make_shared<Collector>();
  const Request request = endless();
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  ASSERT_TRUE(engine->submit(request, Collector::into(collector)).ok());
  EXPECT_EQ(*collector->wait_finish().finish, Finish::length);
  EXPECT_EQ(collector->events.back().usage.completion_tokens, 40 - prompt);
}

// Between two layers, on a machine that may be busy; the whole reply, and the whole prompt, would take seconds.
TEST_F(LocalEngineTest, CancelStopsLongBeforeTheEnd) {
  const auto engine = start({.context = 4096});
  auto collector = std::make_shared<Collector>();
  const Request request = endless();
  ASSERT_TRUE(engine->submit(request, Collector::into(collector)).ok());
  collector->wait_events(3);
  Stopwatch clock;
  request.cancel.cancel();
  EXPECT_EQ(*collector->wait_finish().finish, Finish::cancelled);
  EXPECT_LT(clock.ms(), 1000);

  Request reading = greedy("Hello");  // and while the prompt is read
  reading.prompt.assign(4000, 100);
  auto second = std::make_shared<Collector>();
  ASSERT_TRUE(engine->submit(reading, Collector::into(second)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  clock = {};
  reading.cancel.cancel();
  EXPECT_EQ(*second->wait_finish().finish, Finish::cancelled);
  EXPECT_LT(clock.ms(), 1000);
  EXPECT_EQ(second->events.size(), 2u);  // left the queue, and the end
}

TEST_F(LocalEngineTest, QueueIsBoundedAndFirstComeFirstServed) {
  const auto engine = start({.max_queue = 2});
  std::vector<std::shared_ptr<Collector>> collectors;
  std::vector<Request> requests;
  for (int i = 0; i < 3; ++i) {
    collectors.push_back(std::make_shared<Collector>());
    requests.push_back(endless());
    ASSERT_TRUE(engine->submit(requests.back(), Collector::into(collectors.back())).ok());
    if (i == 0) collectors[0]->wait_events(1);  // running, no longer queued
  }
  EXPECT_TRUE(engine->running());
  EXPECT_EQ(engine->waiting(), 2);
  EXPECT_EQ(engine->submit(endless(), [](Event) {}).code(), Code::unavailable);
  for (int i = 0; i < 3; ++i) {
    collectors[static_cast<size_t>(i)]->wait_events(1);
    for (int later = i + 1; later < 3; ++later) EXPECT_TRUE(collectors[static_cast<size_t>(later)]->events.empty());
    requests[static_cast<size_t>(i)].cancel.cancel();
    collectors[static_cast<size_t>(i)]->wait_finish();
  }
}

TEST_F(LocalEngineTest, MinTokensStopIdsAndMasks) {
  const auto engine = start();
  const std::string prompt =
      "<|im_start|>user\nWhat is the capital of India?<|im_end|>\n<|im_start|>assistant\n"
      "<think>\n\n</think>\n\n";
  const auto reply = [&](auto change) {
    Request request = greedy(prompt);
    change(request);
    auto collector = std::make_shared<Collector>();
    EXPECT_TRUE(engine->submit(request, Collector::into(collector)).ok());
    collector->wait_finish();
    return collector;
  };
  const auto plain = reply([](Request&) {});
  EXPECT_EQ(plain->text(), "The capital of India is New Delhi.");
  const auto longer = reply([&](Request& r) { r.min_tokens = 30; });
  EXPECT_GE(longer->events.back().usage.completion_tokens, 30);
  const std::vector<int32_t> ids = plain->ids();
  const auto stopped = reply([&](Request& r) { r.stop_token_ids = {ids[3]}; });
  EXPECT_EQ(stopped->ids(), std::vector<int32_t>(ids.begin(), ids.begin() + 3));
  const auto masked = reply([&](Request& r) { r.masked_token_ids = {ids[0]}; });
  EXPECT_NE(masked->ids()[0], ids[0]);
}

TEST_F(LocalEngineTest, OneSeedOneTextWhateverRanBefore) {
  const auto engine = start();
  const auto reply = [&](uint64_t seed) {
    Request request = endless(40);
    request.sampling.temperature = 1.5f;
    request.sampling.seed = seed;
    auto collector = std::make_shared<Collector>();
    EXPECT_TRUE(engine->submit(request, Collector::into(collector)).ok());
    collector->wait_finish();
    return collector->ids();
  };
  const auto first = reply(1), other = reply(2), again = reply(1);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

// A mask that takes nothing away keeps the choice with the Sampler: where it is made changes no id.
TEST_F(LocalEngineTest, ChosenWhereTheLogitsAreOrByTheSampler) {
  const auto engine = start({.slots = 3});
  std::vector<Sampling> samplings(5);
  samplings[0] = {.temperature = 0, .presence_penalty = 0.7f, .frequency_penalty = 0.3f};
  samplings[1] = {.temperature = 1.2f, .seed = 3};
  samplings[2] = {.temperature = 0.9f, .top_p = 0.9f, .top_k = 50, .seed = 4};
  samplings[3] = {.temperature = 1, .min_p = 0.02f, .repetition_penalty = 1.4f, .seed = 5};
  samplings[4] = {.temperature = 1.5f, .top_p = 0.8f, .frequency_penalty = 0.5f, .seed = 6};
  const auto replies = [&](bool by_sampler) {
    std::vector<std::shared_ptr<Collector>> collectors;
    for (const Sampling& sampling : samplings) {
      Request request = endless(40);
      request.sampling = sampling;
      if (by_sampler) request.masked_token_ids = {static_cast<int32_t>(model_->weights.config.vocab)};
      collectors.push_back(std::make_shared<Collector>());
      EXPECT_TRUE(engine->submit(request, Collector::into(collectors.back())).ok());
    }
    std::vector<std::vector<int32_t>> ids;
    for (const auto& collector : collectors) {
      collector->wait_finish();
      ids.push_back(collector->ids());
    }
    return ids;
  };
  const auto where_they_are = replies(false);
  EXPECT_EQ(where_they_are, replies(true));
  for (const auto& ids : where_they_are) EXPECT_EQ(ids.size(), 40u);
}

TEST_F(LocalEngineTest, DestructionFinishesEveryRequest) {
  std::vector<std::shared_ptr<Collector>> collectors;
  {
    const auto engine = start();
    for (int i = 0; i < 3; ++i) {
      collectors.push_back(std::make_shared<Collector>());
      ASSERT_TRUE(engine->submit(endless(), Collector::into(collectors.back())).ok());
    }
  }
  for (const auto& collector : collectors) {
    ASSERT_TRUE(collector->finished());
    EXPECT_EQ(*collector->events.back().finish, Finish::cancelled);
  }
}

}  // namespace
}  // namespace nibble::engine
