#include "train/dataset.h"

#include <gtest/gtest.h>

#include "base/sha256.h"
#include "tests/support/temporary_folder.h"

namespace nibble::train {
namespace {

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

std::string talk(const std::string& question, const std::string& answer, const std::string& more = "") {
  return R"({"messages": [{"role": "user", "content": ")" + question + R"("}, {"role": "assistant", "content": ")" +
         answer + "\"}]" + more + "}\n";
}

class DatasetTest : public testing::Test {
 protected:
  Result<Dataset> load(const std::string& text, const DatasetOptions& options = {}) {
    return load_dataset(dir_.write("chats.jsonl", text), tokenizer_, chat_template_, options);
  }

  test::TemporaryFolder dir_;
  text::Tokenizer tokenizer_ = std::move(text::Tokenizer::load(kTinyVoice)).value();
  text::ChatTemplate chat_template_ = std::move(text::ChatTemplate::load(kTinyVoice)).value();
};

TEST(Lengths, AreValuesOfTheList) {
  const Lengths none = lengths_of({}), one = lengths_of({7}), many = lengths_of({5, 1, 4, 2, 3});
  EXPECT_EQ(none.max, 0);
  EXPECT_EQ(one.p95, 7);
  EXPECT_EQ(many.min, 1);
  EXPECT_EQ(many.median, 3);
  EXPECT_EQ(many.p95, 5);
}

TEST_F(DatasetTest, CountsWhatItKeepsAndLeavesOut) {
  std::string long_answer;
  for (int i = 0; i < 300; ++i) long_answer += "word ";
  const auto data = load(talk("a", "b", R"(, "category": "x")") + "\n" + talk("a", "b") + talk("c", "d") +
                             R"({"messages": [{"role": "user", "content": "alone"}]})" + "\n" + talk("e", long_answer),
                         {.sample = {.max_length = 200}});
  ASSERT_TRUE(data.ok()) << data.status().text();
  const DatasetReport& r = data->report;
  EXPECT_EQ(r.records, 5);
  EXPECT_EQ(r.bad, 0);
  EXPECT_EQ(r.duplicates, 1);
  EXPECT_EQ(r.without_loss, 1);
  EXPECT_EQ(r.too_long, 1);
  EXPECT_EQ(r.samples, 2);
  EXPECT_EQ(r.turns, 2);
  EXPECT_EQ(data->samples[0].line, 1);
  EXPECT_EQ(data->samples[1].line, 4);
  EXPECT_EQ(r.categories.at("x"), 1);
  EXPECT_EQ(r.tokens, data->samples[0].tokens() + data->samples[1].tokens());
  EXPECT_EQ(r.loss_rows, data->samples[0].loss_rows() + data->samples[1].loss_rows());
}

TEST_F(DatasetTest, RefusesAFileWithBadLinesUnlessToldToSkipThem) {
  std::string text = talk("a", "b");
  for (int i = 0; i < 5; ++i) text += talk("a", "");
  const auto refused = load(text, {.max_errors = 3});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::corrupt);
  for (const char* part :
       {"5 of 6 records are bad", "chats.jsonl:2: messages[1]: expected content", "chats.jsonl:4: ", "… and 2 more"}) {
    EXPECT_NE(refused.status().message().find(part), std::string::npos) << refused.status().text();
  }
  EXPECT_EQ(refused.status().message().find("chats.jsonl:5"), std::string::npos);
  const auto skipped = load(text, {.skip_bad = true});
  ASSERT_TRUE(skipped.ok());
  EXPECT_EQ(skipped->report.bad, 5);
  EXPECT_EQ(skipped->report.samples, 1);
}

TEST_F(DatasetTest, ErrorsOfTheTemplateAndTheMaskNameTheLine) {
  const auto refused = load(talk("a", "b") + talk("a", "<think>hm</think>b"));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("chats.jsonl:2: messages[1]: expected no reasoning under thinking off"),
            std::string::npos)
      << refused.status().text();
}

TEST_F(DatasetTest, RefusesWhatHasNothingToTrain) {
  EXPECT_EQ(load("").status().code(), Code::invalid_argument);
  EXPECT_EQ(load(talk("a", "b", R"(, "loss": false)")).status().code(), Code::invalid_argument);
  EXPECT_EQ(load_dataset(dir_ / "missing", tokenizer_, chat_template_, {}).status().code(), Code::not_found);
}

TEST_F(DatasetTest, HashesSayWhatChanged) {
  const std::string system = R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"},
      {"role": "assistant", "content": "b"}]})";
  std::string one_line = system;
  std::erase(one_line, '\n');
  const auto a = load(talk("a", "b") + talk("c", "d")), b = load(talk("c", "d") + talk("a", "b")),
             c = load(talk("a", "b") + talk("c", "d", R"(, "weight": 2)")), d = load(one_line);
  EXPECT_NE(a->report.hash, b->report.hash);
  EXPECT_NE(a->report.hash, c->report.hash);
  EXPECT_EQ(a->report.prompt_lock, b->report.prompt_lock);
  EXPECT_NE(a->report.prompt_lock, d->report.prompt_lock);
  EXPECT_EQ(a->report.hash.size(), 64u);
  EXPECT_EQ(a->report.lock.system_prompts, std::set<std::string>{sha256_of("")});
  EXPECT_EQ(d->report.lock.system_prompts, std::set<std::string>{sha256_of("S")});
  EXPECT_EQ(d->report.lock.tools, std::set<std::string>{sha256_of("")});
}

}  // namespace
}  // namespace nibble::train
