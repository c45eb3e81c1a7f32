// Whole runs against a teacher behind HTTP: quotas, misbehaviour, shortfalls, and journals that end anywhere.
#include "synth/generate.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <set>

#include "base/clock.h"
#include "synth/output.h"
#include "tests/support/replay_teacher.h"
#include "tests/support/temporary_folder.h"
#include "train/record.h"

namespace nibble::synth {
namespace {

using nibble::test::ReplayAnswers;
using nibble::test::ReplayTeacher;
using nibble::test::TemporaryFolder;

// The teacher's answers without HTTP, for runs that are about something else.
class InProcess : public Teacher {
 public:
  InProcess(const ReplayAnswers& answers, std::atomic<int>& asked) : answers_(answers), asked_(asked) {}
  Attempt ask(const Question& question) override {
    ++asked_;
    Attempt attempt;
    attempt.answer.reply.content =
        answers_.text(question.messages[0]["content"].get<std::string>(), attempt.answer.finish);
    attempt.answer.prompt_tokens = 100;
    attempt.answer.completion_tokens = 200;
    return attempt;
  }

 private:
  const ReplayAnswers& answers_;
  std::atomic<int>& asked_;
};

// `companion` with a share of its quotas.
Recipe companion(double share = 1) {
  Recipe recipe = load_recipe("companion").value();
  for (Category& one : recipe.categories) one.quota = static_cast<int64_t>(static_cast<double>(one.quota) * share);
  return recipe;
}

// Everything that a run needs, and what it left.
struct World {
  explicit World(Recipe used) : recipe(std::move(used)) {
    for (const std::string& gates : recipe.hold_out.gates) EXPECT_TRUE(hold_out.add_cases(gates).ok()) << gates;
    validator.emplace(Validator::make(recipe, {}, &hold_out).value());
    options.ask.first_backoff_s = 0.01;
  }

  GenerateReport run(MakeTeacher make, Answers& answers) {
    collection.emplace(recipe.set.near);
    auto report = generate({recipe, *validator, hold_out, std::move(make), answers}, options, *collection);
    EXPECT_TRUE(report.ok()) << report.status().text();
    return std::move(report).value();
  }
  GenerateReport run(MakeTeacher make) {
    Answers answers;
    return run(std::move(make), answers);
  }
  std::string rows() const {
    std::string text;
    for (const Accepted& one : collection->accepted())
      text += row_of(recipe, *validator, one, {"t", 1, "v"}).dump() + "\n";
    return text;
  }

  Recipe recipe;
  HoldOut hold_out;
  std::optional<Validator> validator;
  GenerateOptions options;
  std::optional<Collection> collection;
};

MakeTeacher in_process(const ReplayAnswers& answers, std::atomic<int>& asked) {
  return [&] { return std::make_unique<InProcess>(answers, asked); };
}

MakeTeacher over_http(const ReplayTeacher& server, double idle_s = 30) {
  TeacherOptions options;
  options.url = server.url();
  options.model = "replay";
  options.idle_s = idle_s;
  return teacher_of(options).value();
}

std::string shown(const GenerateReport& report) {
  std::string text = report.stop_status.text();
  for (const std::string& one : report.set.shortfalls) text += "\n" + one;
  for (const CategoryReport& one : report.categories) {
    text += fmt::format("\n{} {}/{} asked {}:", one.category->id, one.count.accepted, one.category->quota, one.asked);
    for (const auto& [reason, rows] : one.count.rejected) text += fmt::format(" {} {}", rows, reason);
  }
  return text;
}

void expect_sound(const World& world) {
  std::set<std::string> texts;
  for (const Accepted& one : world.collection->accepted()) {
    const auto faults = world.validator->faults(*one.category, one.candidate.record);
    ASSERT_TRUE(faults.ok());
    EXPECT_TRUE(faults->empty()) << to_text(*faults);
    EXPECT_TRUE(texts.insert(train::spoken_text(one.candidate.record["messages"])).second);
  }
}

TEST(Generate, AGoodTeacherMeetsTheQuotas) {
  World world(companion(0.1));
  ReplayTeacher server({});
  const GenerateReport report = world.run(over_http(server));
  EXPECT_TRUE(report.complete()) << shown(report);
  EXPECT_EQ(report.set.rows, 100);
  EXPECT_GE(report.set.call_share(), 0.2);
  EXPECT_GT(report.spent.completion_tokens, 0);
  expect_sound(world);
}

// Broken JSON, markdown, thinking, a tool that is not there, duplicates, answers cut off; a storm of 429, connections
// that drop, one that stalls: all of `companion`.
TEST(Generate, AMisbehavingTeacherMeetsTheQuotasOfCompanion) {
  World world(companion());
  ReplayTeacher server({.faults = true}, {.storm = 6, .drop_every = 5, .stall_s = 3});
  const GenerateReport report = world.run(over_http(server, 1));
  ASSERT_TRUE(report.complete()) << shown(report);
  EXPECT_EQ(report.set.rows, 1000);
  std::map<std::string, int64_t> rejected;
  for (const CategoryReport& one : report.categories) {
    EXPECT_EQ(one.count.accepted, one.category->quota) << one.category->id;
    for (const auto& [reason, rows] : one.count.rejected) rejected[reason] += rows;
  }
  for (const char* reason : {"broken", "md", "think", "thinking", "duplicate", "personal_data"}) {
    EXPECT_GT(rejected[reason], 0) << reason << shown(report);
  }
  int repaired = 0;
  for (const Accepted& one : world.collection->accepted()) repaired += one.candidate.attempts == 2 ? 1 : 0;
  EXPECT_GT(repaired, 50);
  expect_sound(world);
}

TEST(Generate, ATeacherThatHoldsTooLittleIsNamed) {
  World world(companion(0.2));
  const ReplayAnswers answers = {.held = 11, .short_category = "honest_memory"};
  std::atomic<int> asked{0};
  const GenerateReport report = world.run(in_process(answers, asked));
  EXPECT_FALSE(report.complete());
  EXPECT_EQ(report.stop, Stop::none);
  ASSERT_EQ(report.set.shortfalls.size(), 1U) << shown(report);
  EXPECT_NE(report.set.shortfalls[0].find("honest_memory: 11 of 20 conversations, 9 short; rejected: "),
            std::string::npos)
      << shown(report);
  EXPECT_NE(report.set.shortfalls[0].find("duplicate"), std::string::npos);
  EXPECT_LT(asked, 60);  // and it is given up soon
}

TEST(Generate, ASetWithTooFewCallsFallsShort) {
  Recipe recipe = companion(0.1);
  std::erase_if(recipe.categories, [](const Category& one) { return one.id != "concise_voice" && one.id != "mixed"; });
  recipe.categories[1].quota = 2;
  World world(std::move(recipe));
  std::atomic<int> asked{0};
  const ReplayAnswers answers;
  const GenerateReport report = world.run(in_process(answers, asked));
  ASSERT_EQ(report.set.shortfalls.size(), 1U) << shown(report);
  EXPECT_NE(report.set.shortfalls[0].find("9.1 % of the conversations call a tool, 20.0 % are asked for"),
            std::string::npos)
      << shown(report);
}

TEST(Generate, TheBudgetIsHard) {
  World world(companion());
  world.options.ask.budget.tokens = 5'000;  // an answer costs 300, and is expected to cost more
  const ReplayAnswers answers;
  std::atomic<int> asked{0};
  const GenerateReport report = world.run(in_process(answers, asked));
  EXPECT_EQ(report.stop, Stop::budget);
  EXPECT_FALSE(report.complete());
  EXPECT_GT(asked, 3);
  EXPECT_LE(report.spent.tokens(), 5'000);
}

// Who answers first decides nothing.
TEST(Generate, OrderOfAnswersDoesNotMatter) {
  const ReplayAnswers answers = {.faults = true};
  std::set<std::string> sets;
  for (const int jobs : {1, 3, 16}) {
    World world(companion(0.3));
    world.options.ask.jobs = jobs;
    std::atomic<int> asked{0};
    EXPECT_TRUE(world.run(in_process(answers, asked)).complete());
    sets.insert(world.rows());
  }
  EXPECT_EQ(sets.size(), 1U);
  World other(companion(0.3));
  other.options.seed = 2;
  std::atomic<int> asked{0};
  other.run(in_process(answers, asked));
  EXPECT_FALSE(sets.contains(other.rows()));
}

// A journal that ends at any byte, as kill -9 leaves it: taken up, the same rows to the byte, and nothing is asked
// twice that was answered.
TEST(Generate, AJournalCutAnywhereGivesTheSameSet) {
  const TemporaryFolder folder;
  const ReplayAnswers answers = {.faults = true};
  const Json header = {{"fingerprint", "f"}};
  World world(companion(0.15));
  std::atomic<int> asked{0};
  const auto run = [&](const Path& journal, Journal::Mode mode) {
    const auto opened = Answers::open(journal, header, mode, "replay");
    EXPECT_TRUE(opened.ok()) << opened.status().text();
    asked = 0;
    EXPECT_TRUE(world.run(in_process(answers, asked), **opened).complete());
    return world.rows();
  };
  const std::string expected = run(folder / "whole", Journal::Mode::fresh);
  const int all = asked;
  const std::string journal = read_file(folder / "whole").value();
  Rng rng(11);
  for (int i = 0; i < 20; ++i) {
    const size_t size = i == 0 ? journal.size() : rng.below(static_cast<uint32_t>(journal.size()));
    const std::string cut = journal.substr(0, size);
    const auto lines = static_cast<int>(std::count(cut.begin(), cut.end(), '\n'));
    const Path file = folder.write(fmt::format("cut-{}", i), cut);
    EXPECT_EQ(run(file, Journal::Mode::resume), expected) << size;
    EXPECT_EQ(asked, all - std::max(lines - 1, 0)) << size;
  }
}

TEST(Generate, AJournalOfAnotherRecipeIsRefused) {
  const TemporaryFolder folder;
  ASSERT_TRUE(Answers::open(folder / "j", {{"fingerprint", "one"}}, Journal::Mode::fresh, "t").ok());
  const auto other = Answers::open(folder / "j", {{"fingerprint", "two"}}, Journal::Mode::resume, "t");
  EXPECT_EQ(other.status().code(), Code::invalid_argument);
  EXPECT_NE(other.status().message().find("fingerprint"), std::string::npos);
}

TEST(Generate, CancelKeepsWhatWasAnswered) {
  const TemporaryFolder folder;
  const ReplayAnswers answers;
  World world(companion(0.3));
  std::atomic<int> asked{0};
  class CancelsAfter : public InProcess {
   public:
    CancelsAfter(const ReplayAnswers& answers, std::atomic<int>& asked, CancelToken token)
        : InProcess(answers, asked), asked_(asked), token_(std::move(token)) {}
    Attempt ask(const Question& question) override {
      if (asked_ >= 3) token_.cancel();
      return InProcess::ask(question);
    }

   private:
    std::atomic<int>& asked_;
    CancelToken token_;
  };
  {
    const auto journal = Answers::open(folder / "j", {}, Journal::Mode::fresh, "t").value();
    world.options.ask.cancel = CancelToken();
    const GenerateReport report =
        world.run([&] { return std::make_unique<CancelsAfter>(answers, asked, world.options.ask.cancel); }, *journal);
    EXPECT_EQ(report.stop, Stop::cancelled);
    EXPECT_GE(journal->size(), 3U);
  }
  const auto journal = Answers::open(folder / "j", {}, Journal::Mode::resume, "t").value();
  world.options.ask.cancel = CancelToken();
  EXPECT_TRUE(world.run(in_process(answers, asked), *journal).complete());
  const std::string resumed = world.rows();
  EXPECT_TRUE(world.run(in_process(answers, asked)).complete());
  EXPECT_EQ(world.rows(), resumed);
}

TEST(Generate, PreviewShowsOneOfEachCategory) {
  World world(companion());
  const ReplayAnswers answers = {.faults = true};
  std::atomic<int> asked{0};
  Answers none;
  const auto rows =
      preview({world.recipe, *world.validator, world.hold_out, in_process(answers, asked), none}, world.options, 9);
  ASSERT_TRUE(rows.ok()) << rows.status().text();
  std::set<std::string> categories;
  for (const Accepted& one : *rows) categories.insert(one.category->id);
  EXPECT_EQ(categories.size(), 7U);
  EXPECT_LE(rows->size(), 9U);
}

double cpu_s() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The whole of `companion` with a teacher that takes no time, journal and files included.
TEST(Generate, AThousandConversationsCostLittle) {
  const TemporaryFolder folder;
  const ReplayAnswers answers = {.faults = true};
  World world(companion());
  std::atomic<int> asked{0};
  const double begin_s = cpu_s();
  const auto journal = Answers::open(folder / "j", {}, Journal::Mode::fresh, "t").value();
  const GenerateReport report = world.run(in_process(answers, asked), *journal);
  ASSERT_TRUE(report.complete()) << shown(report);
  ASSERT_TRUE(
      write_set(folder / "set.jsonl", world.recipe, *world.validator, *world.collection, report, {"t", 1, "v"}).ok());
  const double spent_s = cpu_s() - begin_s;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  RecordProperty("cpu_ms", static_cast<int>(spent_s * 1e3));
  RecordProperty("peak_kb", static_cast<int>(usage.ru_maxrss));
  fmt::print("1,000 conversations: {:.2f} s of CPU, {} MB at the peak of the process\n", spent_s,
             usage.ru_maxrss / 1000);
  EXPECT_LT(spent_s, 10);
  EXPECT_LT(usage.ru_maxrss, 200'000);
}

TEST(Output, RowsAreTrainingDataWithTheirOrigin) {
  const TemporaryFolder folder;
  const ReplayAnswers answers;
  World world(companion(0.05));
  std::atomic<int> asked{0};
  const GenerateReport report = world.run(in_process(answers, asked));
  ASSERT_TRUE(report.complete()) << shown(report);
  ASSERT_TRUE(write_set(folder / "set.jsonl", world.recipe, *world.validator, *world.collection, report,
                        {"teacher-1", 1, "0.1"})
                  .ok());
  std::ifstream in(folder / "set.jsonl");
  std::set<std::string> ids;
  int64_t lines = 0;
  for (std::string line; std::getline(in, line); ++lines) {
    const Json row = parse_json(line, "row").value();
    EXPECT_EQ(row["messages"][0]["role"], "system");
    EXPECT_EQ(row["tools"], world.recipe.tools);
    EXPECT_EQ(row["meta"]["teacher"], "teacher-1");
    EXPECT_EQ(row["meta"]["recipe"], "companion");
    EXPECT_GE(row["meta"]["tokens"], 64);
    EXPECT_FALSE(row["persona"].get<std::string>().empty());
    ids.insert(row["id"].get<std::string>());
  }
  EXPECT_EQ(lines, world.recipe.quota());
  EXPECT_EQ(static_cast<int64_t>(ids.size()), lines);
  const Json manifest = parse_json(read_file(manifest_path(folder / "set.jsonl")).value(), "manifest").value();
  EXPECT_EQ(manifest["conversations"], lines);
  EXPECT_EQ(manifest["complete"], true);
  EXPECT_EQ(manifest["categories"]["mixed"]["accepted"], 5);
}

}  // namespace
}  // namespace nibble::synth
