// The speed bench against servers on loopback whose speed is known.
#include "gate/speed_bench.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "gate/chat_stream.h"
#include "gate/speed_report.h"
#include "tests/support/chat_server.h"

namespace nibble::gate {
namespace {

using std::chrono::microseconds;

// Has a token for each word or byte, and as many in a reply as it may have.
class SpeedServer {
 public:
  struct Behaviour {
    std::function<double(const Json& messages)> first_ms = [](const Json&) { return 0.0; };
    int64_t context = 100'000;            // a longer prompt is refused
    int64_t reads = 100'000;              // of a longer prompt only so many tokens are read
    bool counts = true;                   // usage and timings
    bool bytes = false;                   // tokens are bytes
    bool tokenizes = true;                // has /tokenize
    int dies_after = 1'000'000;           // requests, then 500 for everything
    int fails_at = -1;                    // this one alone is a 500
    std::function<void(int)> asked = {};  // before each is answered
  };

  explicit SpeedServer(Behaviour behaviour)
      : behaviour_(std::move(behaviour)),
        server_(
            [this](const LoopbackRequest& request, LoopbackConnection& connection) { answer(request, connection); }) {}

  SpeedOptions options() const {
    SpeedOptions options;
    options.endpoint.url = server_.url();
    options.endpoint.model = "m";
    options.sweeps = {};
    options.contexts = {64, 256};
    options.requests = 3;
    options.warmup = 1;
    options.max_tokens = 4;
    options.seconds = 0;
    return options;
  }
  std::vector<Json> bodies() {
    std::lock_guard lock(mutex_);
    return bodies_;
  }
  int most_at_once() const { return most_; }

 private:
  using LoopbackRequest = test::LoopbackRequest;
  using LoopbackConnection = test::LoopbackConnection;

  int64_t tokens(const Json& messages) const {
    int64_t count = 0;
    for (const Json& message : messages) {
      if (behaviour_.bytes) {
        count += static_cast<int64_t>(message["content"].get_ref<const std::string&>().size());
        continue;
      }
      bool inside = false;
      for (const char c : message["content"].get<std::string>()) {
        const bool blank = c == ' ' || c == '\n';
        count += !blank && !inside;
        inside = !blank;
      }
    }
    return count;
  }

  void answer(const LoopbackRequest& request, LoopbackConnection& connection) {
    if (request.head.find("POST /tokenize ") == 0) {
      if (!behaviour_.tokenizes) return connection.reply(404, R"({"error":{"message":"no such path"}})");
      const int64_t count = tokens(parse_json(request.body, "request").value()["messages"]);
      return connection.reply(200, dump({{"count", std::min(count, behaviour_.reads)}}));
    }
    const bool chat = request.head.find("POST") == 0;
    const int number = chat ? asked_++ : static_cast<int>(asked_);
    if (number >= behaviour_.dies_after || (chat && number == behaviour_.fails_at)) {
      return connection.reply(500, R"({"error":{"message":"no more"}})");
    }
    if (!chat) return connection.reply(200, R"({"data":[{"id":"m"}]})");
    const int now = ++at_once_;
    for (int most = most_; now > most && !most_.compare_exchange_weak(most, now);) {
    }
    respond(number, parse_json(request.body, "request").value(), connection);
    --at_once_;
  }

  void respond(int number, const Json& body, LoopbackConnection& connection) {
    {
      std::lock_guard lock(mutex_);
      bodies_.push_back(body);
    }
    if (behaviour_.asked) behaviour_.asked(number);
    const int64_t prompt = tokens(body["messages"]);
    if (prompt > behaviour_.context) return connection.reply(400, R"({"error":{"message":"it is too long"}})");
    std::this_thread::sleep_for(microseconds(static_cast<int64_t>(1e3 * behaviour_.first_ms(body["messages"]))));
    const auto most = body["max_tokens"].get<int64_t>();
    std::string text = std::string(test::kStreamHead);
    for (int64_t i = 0; i < most; ++i) {
      text += "data: " + dump({{"choices", {{{"delta", {{"content", "a "}}}}}}}) + "\n\n";
    }
    text += "data: " + dump({{"choices", {{{"delta", Json::object()}, {"finish_reason", "length"}}}}}) + "\n\n";
    if (behaviour_.counts) {
      text += "data: " +
              dump({{"choices", Json::array()},
                    {"usage", {{"prompt_tokens", std::min(prompt, behaviour_.reads)}, {"completion_tokens", most}}},
                    {"timings", {{"prompt_ms", 12.5}, {"predicted_per_second", 40}}}}) +
              "\n\n";
    }
    connection.send(text + "data: [DONE]\n\n");
    connection.close();
  }

  Behaviour behaviour_;
  std::mutex mutex_;
  std::vector<Json> bodies_;
  std::atomic<int> asked_{0}, at_once_{0}, most_{0};
  test::LoopbackServer server_;
};

TEST(SpeedBench, MeasuresEverySweep) {
  SpeedServer server({.context = 1000});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context, Sweep::conversation, Sweep::concurrency, Sweep::output};
  options.contexts = {256, 64, 4096, 8192};
  options.clients = {1, 2};
  options.outputs = {4, 8};
  options.conversations = 2;
  SpeedRun run;
  uint64_t last = 0;
  const Status status = run_speed_bench(options, run, [&](const ProgressUpdate& update) {
    EXPECT_GE(update.done, last);
    EXPECT_LE(update.done, update.total);
    last = update.done;
  });
  ASSERT_TRUE(status.ok()) << status.text();
  EXPECT_TRUE(run.sizes_measured);
  ASSERT_EQ(run.skipped.size(), 2u);
  EXPECT_NE(run.skipped[0].find("context 4096: "), std::string::npos) << run.skipped[0];
  EXPECT_NE(run.skipped[0].find("it is too long"), std::string::npos) << run.skipped[0];
  EXPECT_NE(run.skipped[1].find("context 8192: "), std::string::npos) << run.skipped[1];

  const SpeedReport report = speed_report(run);
  EXPECT_EQ(report.failed, 0);
  EXPECT_TRUE(report.first_ttfat_ms.has_value());
  const auto contexts = report.of(Sweep::context);
  ASSERT_EQ(contexts.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(contexts[i]->size, i < 2 ? 64 : 256);
    EXPECT_EQ(contexts[i]->warm, i % 2 == 1);
    EXPECT_EQ(contexts[i]->ttfat_ms.spread.n, 3);
    EXPECT_EQ(contexts[i]->prompt_tokens, static_cast<double>(contexts[i]->size));
    EXPECT_EQ(contexts[i]->completion_tokens, 4);
    EXPECT_EQ(contexts[i]->server_prompt_ms.p50, 12.5);
    EXPECT_EQ(contexts[i]->server_decode_tok_s.p50, 40);
  }
  EXPECT_EQ(report.of(Sweep::conversation).size(), 20u);
  EXPECT_EQ(report.of(Sweep::conversation)[19]->ttfat_ms.spread.n, 2);
  ASSERT_EQ(report.of(Sweep::concurrency).size(), 2u);
  EXPECT_EQ(report.of(Sweep::concurrency)[1]->reply_ms.spread.n, 4);  // two for each client
  ASSERT_EQ(report.of(Sweep::output).size(), 2u);
  EXPECT_EQ(report.of(Sweep::output)[1]->completion_tokens, 8);
  std::set<std::string> figures;
  for (const SpeedFigure& figure : report.figures) figures.insert(figure.id);
  for (const char* id : {"ttfat_cold_64", "ttfat_warm_256", "ttfat_growth", "tok_s_2"}) {
    EXPECT_TRUE(figures.contains(id)) << id;
  }
  EXPECT_EQ(speed_tables(report, true).size(), 4u);
}

TEST(SpeedBench, SeesFirstTokensThatComeLaterWithEveryTurn) {
  SpeedServer server({.first_ms = [](const Json& messages) { return 2.0 * static_cast<double>(messages.size()); }});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::conversation};
  options.conversations = 1;
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  const SpeedReport report = speed_report(run);
  // 8 to 16 ms against 64 to 80: about six times, less what the machine adds to both.
  EXPECT_GT(report.growth.ratio, 2);
  EXPECT_GT(report.growth.interval.low, 1.5);
  // The replies are the history of the next turn.
  const Json last = server.bodies().back()["messages"];
  ASSERT_EQ(last.size(), 40u);
  EXPECT_EQ(last[2]["role"], "assistant");
  EXPECT_EQ(last[2]["content"], "a a a a ");
}

TEST(SpeedBench, ClientsAskAtOnce) {
  SpeedServer server({.first_ms = [](const Json&) { return 60.0; }});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::concurrency};
  options.clients = {4};
  options.warmup = 0;
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  // A server counts a request until it has cleared it away, when its client may already have sent the next.
  EXPECT_GE(server.most_at_once(), 4);
  EXPECT_LE(server.most_at_once(), 8);
  const SpeedReport report = speed_report(run);
  ASSERT_EQ(report.points.size(), 1u);
  EXPECT_GT(report.points[0].in_flight, 2);
  std::set<int64_t> clients;
  for (const SpeedRecord& record : run.records) {
    if (record.counted) clients.insert(record.stream);
  }
  EXPECT_EQ(clients.size(), 4u);
}

TEST(SpeedBench, ColdPromptsShareNothingAndWarmOnesAllButTheirLastLine) {
  const auto ask = [](uint64_t seed) {
    SpeedServer server({});
    SpeedOptions options = server.options();
    options.sweeps = {Sweep::context};
    options.contexts = {64};
    options.warmup = 0;
    options.seed = seed;
    SpeedRun run;
    EXPECT_TRUE(run_speed_bench(options, run).ok());
    return server.bodies();
  };
  const std::vector<Json> bodies = ask(1);
  ASSERT_EQ(bodies.size(), 9u);  // two for the sizes, three cold, one that makes the prefix known, three warm
  std::set<std::string> cold, warm, last_lines;
  for (size_t i = 2; i < bodies.size(); ++i) {
    const Json& messages = bodies[i]["messages"];
    const auto text = messages[0]["content"].get<std::string>();
    (i < 5 ? cold : warm).insert(text.substr(0, text.find('\n')));
    if (i >= 5) last_lines.insert(messages[1]["content"].get<std::string>());
  }
  EXPECT_EQ(cold.size(), 3u);
  EXPECT_EQ(warm.size(), 1u);
  EXPECT_EQ(last_lines.size(), 4u);
  EXPECT_FALSE(cold.contains(*warm.begin()));
  EXPECT_EQ(ask(1), bodies);
  EXPECT_NE(ask(2), bodies);
}

// Words of several tokens miss a size, and digits make up for it: by a route that counts, or by replies of one token.
TEST(SpeedBench, PromptsHaveTheTokensThatWereAsked) {
  for (const bool tokenizes : {true, false}) {
    SpeedServer server({.bytes = true, .tokenizes = tokenizes});
    SpeedOptions options = server.options();
    options.sweeps = {Sweep::context};
    options.contexts = {128, 129, 130, 131, 1000};
    SpeedRun run;
    ASSERT_TRUE(run_speed_bench(options, run).ok());
    int64_t checked = 0;
    for (const SpeedRecord& record : run.records) {
      if (!record.counted) continue;
      EXPECT_EQ(record.said.usage.prompt_tokens, record.size) << record.warm;
      ++checked;
    }
    EXPECT_EQ(checked, 30);
  }
}

TEST(SpeedBench, AServerThatDiesEndsTheRun) {
  SpeedServer server({.dies_after = 5});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context};
  SpeedRun run;
  const Status status = run_speed_bench(options, run);
  EXPECT_EQ(status.code(), Code::unavailable) << status.text();
  const SpeedReport report = speed_report(run);
  EXPECT_GE(report.requests, 2);
  EXPECT_GE(report.failed, 1);
}

TEST(SpeedBench, ARequestThatFailsIsCounted) {
  SpeedServer server({.fails_at = 4});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context};
  options.contexts = {64};
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  const SpeedReport report = speed_report(run);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.points[0].failed, 1);
  EXPECT_EQ(report.points[0].reply_ms.spread.n, 2);
}

TEST(SpeedBench, LeavesOutWhatTheServerCuts) {
  SpeedServer server({.reads = 400});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context};
  options.contexts = {256, 1024};
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  EXPECT_EQ(run.skipped, (std::vector<std::string>{"context 1024: the server read 400 tokens of it"}));
  EXPECT_EQ(speed_report(run).of(Sweep::context).size(), 2u);
}

TEST(SpeedBench, LeavesOutWhatWouldTakeTooLong) {
  SpeedServer server({.first_ms = [](const Json&) { return 30.0; }});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context, Sweep::output};
  options.contexts = {64, 64'000};
  options.requests = 100;
  options.outputs = {4, 40'000};
  options.seconds = 0.2;
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  ASSERT_EQ(run.skipped.size(), 2u);
  EXPECT_NE(run.skipped[0].find("too long for --seconds 0.2"), std::string::npos) << run.skipped[0];
  const SpeedReport report = speed_report(run);
  EXPECT_GE(report.points[0].reply_ms.spread.n, kFewestRequests);
  EXPECT_LE(report.points[0].reply_ms.spread.n, 10);
}

TEST(SpeedBench, WorksWithoutCounts) {
  SpeedServer server({.counts = false});
  SpeedOptions options = server.options();
  options.sweeps = {Sweep::context};
  SpeedRun run;
  ASSERT_TRUE(run_speed_bench(options, run).ok());
  EXPECT_FALSE(run.sizes_measured);
  const SpeedReport report = speed_report(run);
  EXPECT_EQ(report.points[0].prompt_tokens, -1);
  EXPECT_EQ(report.points[0].between_tokens_ms.spread.n, 9);
}

TEST(SpeedBench, StopsWhenAsked) {
  const CancelToken cancel;
  SpeedServer server({.asked = [&](int number) {
    if (number == 5) cancel.cancel();
  }});
  SpeedOptions options = server.options();
  options.endpoint.cancel = cancel;
  options.sweeps = {Sweep::context};
  SpeedRun run;
  EXPECT_EQ(run_speed_bench(options, run).code(), Code::cancelled);
  EXPECT_EQ(speed_report(run).failed, 0);
  EXPECT_GE(run.records.size(), 4u);
}

}  // namespace
}  // namespace nibble::gate
