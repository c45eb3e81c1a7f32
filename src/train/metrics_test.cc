#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>

#include "io/jsonl.h"

namespace nibble::train {
namespace {

class Metrics : public testing::Test {
 protected:
  Metrics() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~Metrics() override { std::filesystem::remove_all(folder_); }

  MetricsLog open(int64_t resume_step = 0) const {
    Result<MetricsLog> log = MetricsLog::open(folder_, {{"lr", 2e-5}, {"mode", "qad"}}, resume_step);
    EXPECT_TRUE(log.ok()) << log.status().text();
    return std::move(log).value();
  }
  RunMetrics read() const {
    Result<RunMetrics> metrics = read_metrics(folder_);
    EXPECT_TRUE(metrics.ok()) << metrics.status().text();
    return std::move(metrics).value();
  }
  std::vector<Json> lines() const {
    std::vector<Json> out;
    const Status status = for_each_json_line(folder_ / "metrics.jsonl", [&](Json& object, int64_t) {
      out.push_back(object);
      return Status();
    });
    EXPECT_TRUE(status.ok()) << status.text();
    return out;
  }

  Path folder_ = Path(testing::TempDir()) / "nibble_metrics_test";
};

void write_steps(MetricsLog& log, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    ASSERT_TRUE(log.add(StepRecord{.step = step, .loss = 1.0 / static_cast<double>(step), .tokens = 100}).ok());
  }
}

TEST_F(Metrics, BothFilesHoldEveryRecord) {
  MetricsLog log = open();
  write_steps(log, 1, 3);
  ASSERT_TRUE(log.add(EvalRecord{.step = 2, .kl = .015}).ok());
  ASSERT_TRUE(log.add(FlipRecord{.step = 2, .tensor = "a'b", .flip = .01}).ok());
  ASSERT_TRUE(log.add(FlipRecord{.step = 2, .flip = .02}).ok());

  const RunMetrics metrics = read();  // while the log is open
  ASSERT_EQ(metrics.steps.size(), 3u);
  EXPECT_EQ(metrics.steps[1].step, 2);
  EXPECT_EQ(metrics.steps[1].loss, .5);
  EXPECT_EQ(metrics.steps[1].tokens, 100);
  EXPECT_TRUE(std::isnan(metrics.steps[1].kl));
  ASSERT_EQ(metrics.evals.size(), 1u);
  EXPECT_EQ(metrics.evals[0].kl, .015);
  ASSERT_EQ(metrics.flips.size(), 1u);
  EXPECT_EQ(metrics.flips[0].flip, .02);

  const std::vector<Json> records = lines();
  ASSERT_EQ(records.size(), 6u);
  EXPECT_EQ(records[0]["type"], "step");
  EXPECT_EQ(records[0]["loss"], 1.0);
  EXPECT_TRUE(records[0]["kl"].is_null());
  EXPECT_EQ(records[3]["type"], "eval");
  EXPECT_EQ(records[4]["tensor"], "a'b");
}

TEST_F(Metrics, AResumedRunIsRecordedOnce) {
  {
    MetricsLog log = open();
    write_steps(log, 1, 8);
    ASSERT_TRUE(log.add(EvalRecord{.step = 5, .kl = 5}).ok());
    ASSERT_TRUE(log.add(FlipRecord{.step = 8, .flip = 8}).ok());
    ASSERT_TRUE(AppendFile::open(folder_ / "metrics.jsonl")->write("{\"type\":\"step\",\"st").ok());
  }
  {
    MetricsLog log = open(4);  // the last checkpoint
    write_steps(log, 5, 6);
  }
  const RunMetrics metrics = read();
  ASSERT_EQ(metrics.steps.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(metrics.steps[i].step, static_cast<int64_t>(i) + 1);
  EXPECT_TRUE(metrics.evals.empty());
  EXPECT_TRUE(metrics.flips.empty());
  const std::vector<Json> records = lines();
  ASSERT_EQ(records.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(records[i]["step"], i + 1);

  open();  // from the beginning
  EXPECT_TRUE(read().steps.empty());
  EXPECT_TRUE(lines().empty());
}

TEST_F(Metrics, AKillLeavesBothFilesReadable) {
  const pid_t child = fork();
  if (child == 0) {
    MetricsLog log = open();
    write_steps(log, 1, 20);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read().steps.size(), 20u);
  EXPECT_EQ(lines().size(), 20u);
  MetricsLog log = open(20);
  write_steps(log, 21, 21);
  EXPECT_EQ(read().steps.size(), 21u);
}

TEST_F(Metrics, MissingFolders) {
  EXPECT_EQ(read_metrics(folder_ / "none").status().code(), Code::not_found);
  EXPECT_FALSE(MetricsLog::open(folder_ / "none", {}).ok());
}

}  // namespace
}  // namespace nibble::train
