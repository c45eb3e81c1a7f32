#include "synth/asker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/clock.h"

namespace nibble::synth {
namespace {

class ScriptedTeacher : public Teacher {
 public:
  explicit ScriptedTeacher(std::vector<Attempt> attempts) : attempts_(std::move(attempts)) {}
  Attempt ask(const Question& question) override {
    asked.push_back(question);
    return attempts_[std::min(asked.size() - 1, attempts_.size() - 1)];
  }
  std::vector<Question> asked;

 private:
  std::vector<Attempt> attempts_;
};

Attempt answered(const std::string& text) {
  Attempt attempt;
  attempt.answer.reply.content = text;
  attempt.answer.prompt_tokens = 10;
  attempt.answer.completion_tokens = 20;
  return attempt;
}

Attempt failed(Status status, bool overloaded = false, double retry_after_s = -1) {
  Attempt attempt;
  attempt.status = std::move(status);
  attempt.overloaded = overloaded;
  attempt.retry_after_s = retry_after_s;
  return attempt;
}

Question question() {
  Question question;
  question.messages = Json::array({{{"role", "user"}, {"content", "Hello."}}});
  question.max_tokens = 1000;
  return question;
}

const AskOptions kFast = {
    .jobs = 4, .retries = 2, .first_backoff_s = 0.001, .patience_s = 600, .budget = {}, .cancel = {}};

TEST(Asker, TriesAgainWhatBrokeOff) {
  Asker asker(kFast, {});
  ScriptedTeacher teacher({failed(io("broke off")), failed(unavailable("refused")), answered("Hi.")});
  const auto answer = asker.ask(teacher, question());
  ASSERT_TRUE(answer.ok()) << answer.status().text();
  EXPECT_EQ(answer->reply.content, "Hi.");
  EXPECT_EQ(teacher.asked.size(), 3U);
  EXPECT_EQ(asker.spent().tokens(), 30);
}

TEST(Asker, GivesOneRequestUpAndGoesOn) {
  Asker asker(kFast, {});
  ScriptedTeacher dead({failed(io("broke off"))}), alive({answered("Hi.")});
  EXPECT_EQ(asker.ask(dead, question()).status().code(), Code::unavailable);
  EXPECT_EQ(dead.asked.size(), 3U);
  EXPECT_EQ(asker.stopped(), Stop::none);
  EXPECT_TRUE(asker.ask(alive, question()).ok());
}

TEST(Asker, StopsWhenNobodyIsThere) {
  Asker asker(kFast, {});
  ScriptedTeacher dead({failed(unavailable("refused"))});
  for (int i = 0; i < 20 && asker.stopped() == Stop::none; ++i) (void)asker.ask(dead, question());
  EXPECT_EQ(asker.stopped(), Stop::unavailable);
  EXPECT_EQ(asker.ask(dead, question()).status().code(), Code::cancelled);
}

TEST(Asker, AStormCostsNoAttempts) {
  Asker asker(kFast, {});
  std::vector<Attempt> storm(10, failed(unavailable("429"), true, 0.001));
  storm.push_back(answered("Hi."));
  ScriptedTeacher teacher(storm);
  EXPECT_TRUE(asker.ask(teacher, question()).ok());
  EXPECT_EQ(teacher.asked.size(), 11U);
}

TEST(Asker, PatienceEnds) {
  AskOptions options = kFast;
  options.patience_s = 0.05;
  Asker asker(options, {});
  ScriptedTeacher teacher({failed(unavailable("429"), true, 0.01)});
  EXPECT_EQ(asker.ask(teacher, question()).status().code(), Code::cancelled);
  EXPECT_EQ(asker.stopped(), Stop::unavailable);
}

TEST(Asker, ARefusalIsFinal) {
  Asker asker(kFast, {});
  ScriptedTeacher teacher({failed(invalid_argument("401: who are you?"))});
  EXPECT_FALSE(asker.ask(teacher, question()).ok());
  EXPECT_EQ(teacher.asked.size(), 1U);
  EXPECT_EQ(asker.stopped(), Stop::refused);
  EXPECT_NE(asker.stop_status().message().find("who are you"), std::string::npos);
}

TEST(Asker, TheBudgetShortensAnswersAndEndsIt) {
  AskOptions options = kFast;
  options.budget.tokens = 600;
  Asker asker(options, {});
  ScriptedTeacher teacher({answered("Hi.")});
  for (int i = 0; i < 100 && asker.stopped() == Stop::none; ++i) (void)asker.ask(teacher, question());
  EXPECT_EQ(asker.stopped(), Stop::budget);
  EXPECT_LE(asker.spent().tokens(), 600);
  EXPECT_LT(teacher.asked[0].max_tokens, 600);
}

TEST(Asker, CancelWakesWhoWaits) {
  AskOptions options = kFast;
  options.cancel = CancelToken();  // copies share their flag
  Asker asker(options, {});
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    options.cancel.cancel();
  });
  ScriptedTeacher teacher({failed(unavailable("429"), true, 60)});
  const Stopwatch watch;
  EXPECT_EQ(asker.ask(teacher, question()).status().code(), Code::cancelled);
  EXPECT_LT(watch.seconds(), 5);
  EXPECT_EQ(asker.stopped(), Stop::cancelled);
  later.join();
}

// Never more in flight than the jobs allow.
TEST(Asker, KeepsItsLimit) {
  Asker asker(kFast, {});
  std::atomic<int> now{0}, most{0};
  class Counting : public Teacher {
   public:
    Counting(std::atomic<int>& now, std::atomic<int>& most) : now_(now), most_(most) {}
    Attempt ask(const Question&) override {
      const int here = ++now_;
      for (int seen = most_; here > seen && !most_.compare_exchange_weak(seen, here);) {
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      --now_;
      return answered("Hi.");
    }

   private:
    std::atomic<int>&now_, &most_;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 12; ++t) {
    threads.emplace_back([&] {
      Counting teacher(now, most);
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(asker.ask(teacher, question()).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 4);
  EXPECT_EQ(asker.spent().requests, 240);
}

}  // namespace
}  // namespace nibble::synth
