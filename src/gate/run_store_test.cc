#include "gate/run_store.h"

#include <gtest/gtest.h>

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
