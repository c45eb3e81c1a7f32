#include "train/split.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "io/jsonl.h"
#include "tests/support/temporary_folder.h"
#include "train/record.h"

namespace nibble::train {
namespace {

std::string talk(const std::string& persona, int i) {
  return fmt::format(
      R"({{"messages": [{{"role": "user", "content": "q{}"}}, {{"role":"assistant", "content": "a"}}], "persona": "{}"}})",
      i, persona);
}

std::map<std::string, std::set<std::string>> lines_by_group(const Path& file) {
  std::map<std::string, std::set<std::string>> groups;
  EXPECT_TRUE(for_each_line(file, [&](const TextLine& line) -> Status {
                auto record = parse_record(line.text, "f");
                EXPECT_TRUE(record.ok());
                groups[record->group].insert(std::string(line.text));
                return {};
              }).ok());
  return groups;
}

TEST(Split, KeepsGroupsTogetherAndLinesAsTheyAre) {
  const test::TemporaryFolder dir;
  std::string text;
  for (int i = 0; i < 400; ++i) text += talk(fmt::format("p{}", i % 200), i) + "\n";
  const Path file = dir.write("all.jsonl", text);
  const auto report = split_file(file, dir / "out", 0.25, 1);
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_EQ(report->train + report->valid, 400);
  EXPECT_EQ(report->groups, 200);
  EXPECT_GT(report->valid, 60);
  EXPECT_LT(report->valid, 140);
  auto train = lines_by_group(dir / "out/train.jsonl"), valid = lines_by_group(dir / "out/valid.jsonl");
  for (const auto& [group, lines] : valid) EXPECT_FALSE(train.contains(group)) << group;
  auto all = lines_by_group(file);
  train.merge(valid);
  EXPECT_EQ(train, all);

  // Growing data keeps its validation set.
  const Path grown = dir.write("grown.jsonl", text + talk("new", 1) + "\n");
  ASSERT_TRUE(split_file(grown, dir / "out2", 0.25, 1).ok());
  for (const auto& [group, lines] : lines_by_group(dir / "out2/train.jsonl")) {
    if (group == "persona=new") continue;
    EXPECT_TRUE(train.contains(group) && !lines_by_group(dir / "out/valid.jsonl").contains(group));
  }
  EXPECT_FALSE(split_file(file, dir / "out", 0.25, 1).ok());  // never over what is there
}

TEST(Split, RefusesAnEmptySideAndBadLines) {
  const test::TemporaryFolder dir;
  const Path one = dir.write("one.jsonl", talk("p", 1) + "\n" + talk("p", 2));
  const auto empty_side = split_file(one, dir / "out", 0.5, 1);
  ASSERT_FALSE(empty_side.ok());
  EXPECT_NE(empty_side.status().message().find("expected records on both sides"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  const auto bad = split_file(dir.write("bad.jsonl", talk("p", 1) + "\n\n{"), dir / "out", 0.5, 1);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("bad.jsonl:3: "), std::string::npos) << bad.status().text();
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
}

TEST(Dedupe, KeepsTheFirstOfEqualConversations) {
  const test::TemporaryFolder dir;
  const Path file = dir.write("f.jsonl", talk("a", 1) + "\n" + talk("b", 1) + "\n" + talk("a", 2) + "\n");
  const auto report = dedupe_file(file, dir / "out.jsonl");
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_EQ(report->records, 3);
  EXPECT_EQ(report->kept, 2);
  EXPECT_EQ(*read_file(dir / "out.jsonl"), talk("a", 1) + "\n" + talk("a", 2) + "\n");
}

TEST(Dedupe, LeavesOutWhatIsNearlySaid) {
  const test::TemporaryFolder dir;
  const auto line = [](const std::string& system, const std::string& user) {
    return Json{{"messages",
                 {{{"role", "system"}, {"content", system}},
                  {{"role", "user"}, {"content", user}},
                  {{"role", "assistant"},
                   {"content", "It leaves from platform two at a quarter past nine, as it does on every day."}}}}}
               .dump() +
           "\n";
  };
  const std::string first = line("You are Annie.", "When does the early train to the coast leave tomorrow?");
  const std::string other = line("You are Annie.", "Where did I put the keys of the small blue cupboard?");
  const Path file = dir.write(
      "in.jsonl",
      first + line("You are Bo.", "When does the early train to the coast leave tomorrow morning?") + other + first);
  const auto exact = dedupe_file(file, dir / "exact.jsonl");
  ASSERT_TRUE(exact.ok()) << exact.status().text();
  EXPECT_EQ(exact->kept, 3);
  const auto near = dedupe_file(file, dir / "near.jsonl", 0.8);
  ASSERT_TRUE(near.ok()) << near.status().text();
  EXPECT_EQ(near->kept, 2);
  EXPECT_EQ(near->near, 1);
  EXPECT_EQ(*read_file(dir / "near.jsonl"), first + other);
  EXPECT_FALSE(dedupe_file(file, dir / "x.jsonl", 2).ok());
}

}  // namespace
}  // namespace nibble::train
