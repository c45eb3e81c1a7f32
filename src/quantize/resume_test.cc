// An interrupted quantization, continued, gives the bytes of an undisturbed one.
#include <gtest/gtest.h>

#include <fstream>

#include "checkpoint/test_folder.h"
#include "quantize/quantize.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using checkpoint::testing::TestCheckpoint;
using test::TemporaryFolder;

class Resume : public testing::Test {
 protected:
  Resume() {
    TestCheckpoint::micro().write(source());
    options_.shard_bytes = 20000;
  }
  ~Resume() override { inject_file_faults({}); }

  Path source() const { return folder_ / "source"; }
  Path output() const { return folder_ / "output"; }

  Result<QuantizeReport> run() {
    NIBBLE_TRY(key, job_key(source(), options_, "test"));
    NIBBLE_TRY(folder, PartialFolder::open(output(), key));
    resumed_ = folder.resumed();
    NIBBLE_TRY(report, quantize_folder(source(), folder, options_, pool_));
    NIBBLE_RETURN_IF_ERROR(folder.commit());
    return std::move(report);
  }

  static std::map<std::string, std::string> contents(const Path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) files[std::filesystem::relative(entry.path(), folder)] = *read_file(entry.path());
    }
    return files;
  }

  static void expect_equal(const QuantizeReport& a, const QuantizeReport& b) {
    ASSERT_EQ(a.quantized.size(), b.quantized.size());
    for (size_t i = 0; i < a.quantized.size(); ++i) {
      EXPECT_EQ(a.quantized[i].module, b.quantized[i].module);
      EXPECT_EQ(a.quantized[i].tensor_scale, b.quantized[i].tensor_scale);
      EXPECT_EQ(a.quantized[i].stats.error, b.quantized[i].stats.error);
      EXPECT_EQ(a.quantized[i].stats.energy, b.quantized[i].stats.energy);
      EXPECT_EQ(a.quantized[i].stats.blocks, b.quantized[i].stats.blocks);
    }
  }

  ThreadPool pool_{2};
  TemporaryFolder folder_;
  QuantizeOptions options_;
  bool resumed_ = false;
};

TEST_F(Resume, CancelledAnywhere) {
  uint64_t updates = 0;
  options_.progress = [&](const ProgressUpdate&) { ++updates; };
  const Result<QuantizeReport> whole = run();
  ASSERT_TRUE(whole.ok()) << whole.status().text();
  const std::map<std::string, std::string> expected = contents(output());
  const Result<QuantizeReport> other_way = quantize_folder(source(), folder_ / "at-once", options_, pool_);
  ASSERT_TRUE(other_way.ok());
  EXPECT_EQ(contents(folder_ / "at-once"), expected);
  updates /= 2;

  for (uint64_t stop = 1; stop <= updates; stop += 5) {
    std::filesystem::remove_all(output());
    uint64_t seen = 0;
    options_.cancel = CancelToken();
    options_.progress = [&](const ProgressUpdate&) {
      if (++seen == stop) options_.cancel.cancel();
    };
    const Result<QuantizeReport> stopped = run();
    ASSERT_EQ(stopped.status().code(), Code::cancelled) << stop;
    EXPECT_NE(stopped.status().message().find("the same command goes on from here"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(output()));
    options_.cancel = CancelToken();
    ProgressUpdate last;
    options_.progress = [&](const ProgressUpdate& update) { last = update; };
    const Result<QuantizeReport> report = run();
    ASSERT_TRUE(report.ok()) << report.status().text();
    EXPECT_EQ(last.done, last.total);
    EXPECT_EQ(contents(output()), expected) << stop;
    expect_equal(*report, *whole);
  }
}

TEST_F(Resume, FinishedShardsAreNotComputedAgain) {
  uint64_t seen = 0;
  options_.progress = [&](const ProgressUpdate&) {
    if (++seen == 60) options_.cancel.cancel();
  };
  ASSERT_EQ(run().status().code(), Code::cancelled);
  const std::map<std::string, std::string> left = contents(folder_ / "output.partial/model");
  ASSERT_GT(left.size(), 1u);
  const Path first = folder_ / "output.partial/model" / left.begin()->first;
  const auto before = std::filesystem::last_write_time(first);
  options_.cancel = CancelToken();
  options_.progress = {};
  int solved = 0;
  options_.solved = [&](const std::string&) -> Result<std::optional<SolvedLinear>> {
    ++solved;
    return std::optional<SolvedLinear>();
  };
  ASSERT_TRUE(run().ok());
  EXPECT_TRUE(resumed_);
  EXPECT_LT(solved, 25);
  EXPECT_GT(solved, 0);
  EXPECT_EQ(std::filesystem::last_write_time(output() / first.filename()), before);
}

TEST_F(Resume, LostRecordsAreMadeAgain) {
  const Result<QuantizeReport> whole = run();
  ASSERT_TRUE(whole.ok());
  const std::map<std::string, std::string> expected = contents(output());
  std::filesystem::remove_all(output());
  uint64_t seen = 0;
  options_.progress = [&](const ProgressUpdate&) {
    if (++seen == 60) options_.cancel.cancel();
  };
  ASSERT_EQ(run().status().code(), Code::cancelled);
  const Path records = folder_ / "output.partial/tensors";
  std::filesystem::resize_file(records, std::filesystem::file_size(records) / 2);  // in the middle of a line
  options_.cancel = CancelToken();
  options_.progress = {};
  const Result<QuantizeReport> report = run();
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_EQ(contents(output()), expected);
  expect_equal(*report, *whole);
}

TEST_F(Resume, AFaultOfAnyOperationIsMadeUpFor) {
  int operations = 0;
  inject_file_faults([&](std::string_view, const Path&) { return ++operations, Status(); });
  ASSERT_TRUE(run().ok());
  inject_file_faults({});
  const std::map<std::string, std::string> expected = contents(output());
  for (int failing = 1; failing <= operations; failing += 3) {
    std::filesystem::remove_all(output());
    int seen = 0;
    inject_file_faults([&](std::string_view operation, const Path& path) {
      return ++seen == failing ? io("{}: injected ({})", operation, path.string()) : Status();
    });
    (void)run();
    inject_file_faults({});
    if (std::filesystem::exists(output())) continue;  // a fault that was of no consequence
    const Result<QuantizeReport> report = run();
    ASSERT_TRUE(report.ok()) << failing << ": " << report.status().text();
    EXPECT_EQ(contents(output()), expected) << failing;
  }
}

TEST_F(Resume, TheKeyHoldsWhatChangesBytes) {
  const auto key = [&](const QuantizeOptions& options, const char* more = "") {
    const Result<std::string> made = job_key(source(), options, more);
    EXPECT_TRUE(made.ok()) << made.status().text();
    return made.ok() ? *made : std::string();
  };
  const std::string plain = key(options_);
  EXPECT_EQ(plain.size(), 64u);
  EXPECT_EQ(key(options_), plain);
  EXPECT_NE(key(options_, "calibration"), plain);
  const std::function<void(QuantizeOptions&)> changes[] = {
      [](QuantizeOptions& o) { o.recipe.scales = Scales::mse; },
      [](QuantizeOptions& o) { o.recipe.rules[0].inputs = Inputs::a4; },
      [](QuantizeOptions& o) { o.recipe.damping = 0.01; },
      [](QuantizeOptions& o) { o.exclude = {"mlp"}; },
      [](QuantizeOptions& o) {
        o.formats["lm_head"] = {Format::fp8, Inputs::a16};
      },
      [](QuantizeOptions& o) { o.untie = true; },
      [](QuantizeOptions& o) { o.layout = Layout::compressed_tensors; },
      [](QuantizeOptions& o) { o.input_amax["lm_head"] = 1; },
      [](QuantizeOptions& o) { o.tie_groups = false; },
      [](QuantizeOptions& o) { o.quantize = false; },
      [](QuantizeOptions& o) { ++o.shard_bytes; },
  };
  for (const auto& change : changes) {
    QuantizeOptions options = options_;
    change(options);
    EXPECT_NE(key(options), plain);
  }
  std::ofstream(source() / "config.json", std::ios::app) << " ";
  EXPECT_NE(key(options_), plain);
}

}  // namespace
}  // namespace nibble::quantize
