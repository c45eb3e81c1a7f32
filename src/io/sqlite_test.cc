#include "io/sqlite.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <span>
#include <thread>

namespace nibble {
namespace {

class Sqlite : public testing::Test {
 protected:
  void SetUp() override { TearDown(); }
  void TearDown() override {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_.string() + suffix);
  }
  Path path_ = Path(testing::TempDir()) / "nibble_sqlite_test.db";
};

TEST_F(Sqlite, WritesAndReadsBack) {
  Result<Database> db = Database::open(path_, Database::Mode::write);
  ASSERT_TRUE(db.ok()) << db.status().text();
  ASSERT_TRUE(db->execute("CREATE TABLE t (i INTEGER, x REAL, s TEXT)").ok());
  Result<SqlStatement> insert = db->prepare("INSERT INTO t VALUES (?, ?, ?)");
  ASSERT_TRUE(insert.ok()) << insert.status().text();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double x : {0.1, nan}) {
    insert->bind(0, int64_t{1} << 60);
    insert->bind(1, x);
    insert->bind(2, "it's \"text\" — ");
    ASSERT_TRUE(insert->run().ok());
  }
  // Another connection, while the first is open.
  Result<Database> reader = Database::open(path_, Database::Mode::read);
  ASSERT_TRUE(reader.ok()) << reader.status().text();
  Result<SqlStatement> select = reader->prepare("SELECT i, x, s FROM t ORDER BY rowid");
  ASSERT_TRUE(select.ok());
  ASSERT_TRUE(*select->step());
  EXPECT_EQ(select->integer(0), int64_t{1} << 60);
  EXPECT_EQ(select->real(1), 0.1);
  EXPECT_EQ(select->text(2), "it's \"text\" — ");
  ASSERT_TRUE(*select->step());
  EXPECT_TRUE(std::isnan(select->real(1)));
  EXPECT_FALSE(*select->step());
}

// What a later version of a program does to the files of the earlier ones.
TEST_F(Sqlite, MigratesStepByStep) {
  const char* const steps[] = {"CREATE TABLE runs (id TEXT PRIMARY KEY); INSERT INTO runs VALUES ('old')",
                               "ALTER TABLE runs ADD COLUMN passed INTEGER NOT NULL DEFAULT 7"};
  const char* const broken[] = {steps[0], "INSERT INTO runs VALUES ('half'); INSERT INTO nowhere VALUES (1)"};
  const std::span all(steps);
  auto database = Database::open(path_, Database::Mode::write);
  ASSERT_TRUE(database.ok());
  EXPECT_EQ(*database->version(), 0);
  ASSERT_TRUE(database->migrate(all.first(1)).ok());
  EXPECT_EQ(*database->version(), 1);
  EXPECT_FALSE(database->migrate(broken).ok());  // and nothing of the step is left
  EXPECT_EQ(*database->version(), 1);
  const Status moved = database->migrate(all);
  ASSERT_TRUE(moved.ok()) << moved.text();
  EXPECT_EQ(*database->version(), 2);
  auto rows = database->prepare("SELECT id, passed FROM runs");
  ASSERT_TRUE(rows.ok());
  ASSERT_TRUE(*rows->step());
  EXPECT_EQ(rows->text(0), "old");
  EXPECT_EQ(rows->integer(1), 7);
  EXPECT_FALSE(*rows->step());
  EXPECT_TRUE(database->migrate(all).ok());  // nothing to do
  EXPECT_EQ(database->migrate(all.first(1)).code(), Code::unsupported);
}

// A file without a write-ahead log gets one when its other writer lets go, not an error.
TEST_F(Sqlite, WaitsToBeginTheLog) {
  auto busy = Database::open(path_, Database::Mode::write);
  ASSERT_TRUE(busy.ok());
  ASSERT_TRUE(busy->execute("PRAGMA journal_mode = DELETE; BEGIN IMMEDIATE; CREATE TABLE t (i)").ok());
  Status opened;
  std::thread other([&] { opened = Database::open(path_, Database::Mode::write).status(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(busy->execute("COMMIT").ok());
  other.join();
  EXPECT_TRUE(opened.ok()) << opened.text();
}

TEST_F(Sqlite, ErrorsNameTheFile) {
  EXPECT_EQ(Database::open(path_, Database::Mode::read).status().code(), Code::not_found);
  EXPECT_EQ(Database::open("/no/such/folder/x.db", Database::Mode::write).status().code(), Code::io);
  ASSERT_TRUE(write_file(path_, std::string(5000, 'x')).ok());
  const Status status = Database::open(path_, Database::Mode::write).status();
  EXPECT_EQ(status.code(), Code::corrupt);
  EXPECT_NE(status.message().find("nibble_sqlite_test.db"), std::string::npos) << status.message();
  std::filesystem::remove(path_);
  Result<Database> db = Database::open(path_, Database::Mode::write);
  ASSERT_TRUE(db.ok());
  EXPECT_FALSE(db->execute("SELEKT 1").ok());
  EXPECT_FALSE(db->prepare("SELECT * FROM missing").ok());
}

}  // namespace
}  // namespace nibble
