#include "gate/run_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

StoredRun run_of(std::string id, std::string started) {
  return {.id = std::move(id),
          .command = "gate",
          .started = std::move(started),
          .recipe = "companion",
          .model = "m",
          .cases = 4,
          .passed = 3,
          .exit_code = 1,
          .report = {{"schema", 1}, {"text", "it's; DROP TABLE runs"}}};
}

TEST(RunStore, KeepsRuns) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(RunStore::open(folder.path(), Database::Mode::read).status().code(), Code::not_found);
  {
    auto store = RunStore::open(folder.path(), Database::Mode::write);
    ASSERT_TRUE(store.ok()) << store.status().text();
    ASSERT_TRUE(store->add(run_of("a", "2026-01-01T00:00:00Z")).ok());
    ASSERT_TRUE(store->add(run_of("b", "2026-01-02T00:00:00Z")).ok());
    ASSERT_TRUE(store->add(run_of("a", "2026-01-03T00:00:00Z")).ok());  // once more
  }
  auto store = RunStore::open(folder.path(), Database::Mode::read);
  ASSERT_TRUE(store.ok()) << store.status().text();
  const auto runs = store->list();
  ASSERT_TRUE(runs.ok()) << runs.status().text();
  ASSERT_EQ(runs->size(), 2u);
  EXPECT_EQ((*runs)[0].id, "a");
  EXPECT_EQ((*runs)[1].id, "b");
  const auto run = store->get("b");
  ASSERT_TRUE(run.ok()) << run.status().text();
  EXPECT_EQ(run->report, run_of("b", "").report);
  EXPECT_EQ(run->passed, 3);
  EXPECT_EQ(run->exit_code, 1);
  EXPECT_EQ(store->get("c").status().message(), "runs: expected one of a, b, got \"c\"");
}

// A file from before there were runs in it: readers leave it alone, the first writer brings it up to date.
TEST(RunStore, BringsAnOlderFileUpToDate) {
  const test::TemporaryFolder folder;
  ASSERT_TRUE(Database::open(folder / "runs.sqlite", Database::Mode::write)->execute("CREATE TABLE other (x)").ok());
  EXPECT_EQ(RunStore::open(folder.path(), Database::Mode::read).status().code(), Code::unsupported);
  auto store = RunStore::open(folder.path(), Database::Mode::write);
  ASSERT_TRUE(store.ok()) << store.status().text();
  ASSERT_TRUE(store->add(run_of("a", "2026-01-01T00:00:00Z")).ok());
  EXPECT_EQ(*Database::open(folder / "runs.sqlite", Database::Mode::read)->version(), RunStore::kVersion);
  EXPECT_EQ(RunStore::open(folder.path(), Database::Mode::read)->list()->size(), 1u);
}

// Runs `work` in a process of its own.
pid_t in_child(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  work();
  ::_exit(0);
}

TEST(RunStore, WhatWasAddedSurvivesAKill) {
  const test::TemporaryFolder folder;
  const Path acknowledged = folder / "acknowledged";
  const pid_t child = in_child([&] {
    auto store = RunStore::open(folder.path(), Database::Mode::write);
    std::ofstream out(acknowledged);
    for (int i = 0; store->add(run_of(std::to_string(i), "2026-01-01T00:00:00Z")).ok(); ++i) out << i << std::endl;
  });
  const auto lines = [&] {
    std::ifstream in(acknowledged);
    return std::count(std::istreambuf_iterator<char>(in), {}, '\n');
  };
  while (lines() < 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  auto store = RunStore::open(folder.path(), Database::Mode::read);
  ASSERT_TRUE(store.ok()) << store.status().text();
  const auto runs = store->list();
  EXPECT_GE(static_cast<int64_t>(runs->size()), lines());
  for (const StoredRun& run : *runs) EXPECT_EQ(store->get(run.id)->report, run_of("", "").report) << run.id;
}

// A writer that died in the middle of a row leaves nothing of it.
TEST(RunStore, AHalfWrittenRunIsNone) {
  const test::TemporaryFolder folder;
  ASSERT_TRUE(RunStore::open(folder.path(), Database::Mode::write)->add(run_of("a", "2026-01-01T00:00:00Z")).ok());
  const pid_t child = in_child([&] {
    auto database = Database::open(folder / "runs.sqlite", Database::Mode::write);
    (void)database->execute(
        "BEGIN IMMEDIATE; DELETE FROM runs; INSERT INTO runs SELECT 'half', '', '', '', '', 0, 0, 0, '{'");
    ::kill(::getpid(), SIGKILL);
  });
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  auto store = RunStore::open(folder.path(), Database::Mode::write);
  ASSERT_TRUE(store.ok()) << store.status().text();
  const auto runs = store->list();
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ(runs->front().id, "a");
}

TEST(RunStore, WritersTakeTurns) {
  const test::TemporaryFolder folder;
  const auto add_all = [&](const std::string& name) {
    auto store = RunStore::open(folder.path(), Database::Mode::write);  // a new file, for whoever is first
    for (int i = 0; store.ok() && i < 30; ++i) {
      if (!store->add(run_of(name + std::to_string(i), "2026-01-01T00:00:00Z")).ok()) ::_exit(1);
    }
    if (!store.ok()) ::_exit(2);
  };
  const pid_t first = in_child([&] { add_all("a"); }), second = in_child([&] { add_all("b"); });
  for (const pid_t child : {first, second}) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(RunStore::open(folder.path(), Database::Mode::read)->list()->size(), 60u);
}

TEST(RunStore, RefusesAFileOfALaterVersion) {
  const test::TemporaryFolder folder;
  {
    auto database = Database::open(folder / "runs.sqlite", Database::Mode::write);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->execute("PRAGMA user_version = 99").ok());
  }
  EXPECT_EQ(RunStore::open(folder.path(), Database::Mode::write).status().code(), Code::unsupported);
}

}  // namespace
}  // namespace nibble::gate
