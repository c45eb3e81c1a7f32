#include "io/journal.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temporary_folder.h"

namespace nibble {
namespace {

const Json kHeader = {{"schema", 1}, {"recipe", "a"}};

std::vector<int> numbers(const Path& path) {
  std::vector<int> out;
  auto journal = Journal::open(path, kHeader, Journal::Mode::resume, [&](const Json& line, uint64_t) {
    out.push_back(line["n"].get<int>());
    return Status();
  });
  EXPECT_TRUE(journal.ok()) << journal.status().text();
  return out;
}

class JournalTest : public ::testing::Test {
 protected:
  test::TemporaryFolder folder_;
  Path path_ = folder_ / "log.jsonl";
};

TEST_F(JournalTest, KeepsWhatWasAppended) {
  {
    auto journal = Journal::open(path_, kHeader, Journal::Mode::fresh);
    ASSERT_TRUE(journal.ok()) << journal.status().text();
    std::vector<uint64_t> offsets;
    for (int n = 0; n < 3; ++n) {
      auto offset = journal->append({{"n", n}});
      ASSERT_TRUE(offset.ok());
      offsets.push_back(*offset);
    }
    for (int n = 0; n < 3; ++n) {
      auto line = journal->read(offsets[static_cast<size_t>(n)]);
      ASSERT_TRUE(line.ok());
      EXPECT_EQ((*line)["n"], n);
    }
    EXPECT_EQ(Journal::open(path_, kHeader, Journal::Mode::resume).status().code(), Code::unavailable);  // two writers
  }
  EXPECT_EQ(numbers(path_), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(Journal::open(path_, kHeader, Journal::Mode::fresh).status().code(), Code::invalid_argument);
}

// Whatever byte the writer died at: the whole lines stay, the torn one goes, and new ones follow.
TEST_F(JournalTest, CutsOffATornLine) {
  {
    auto journal = Journal::open(path_, kHeader, Journal::Mode::fresh);
    ASSERT_TRUE(journal.ok());
    for (int n = 0; n < 3; ++n) ASSERT_TRUE(journal->append({{"n", n}}).ok());
  }
  auto whole = read_file(path_);
  ASSERT_TRUE(whole.ok());
  for (size_t size = 0; size <= whole->size(); ++size) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << whole->substr(0, size);
    const std::string kept = whole->substr(0, size);
    const auto lines = std::count(kept.begin(), kept.end(), '\n');
    EXPECT_EQ(numbers(path_).size(), static_cast<size_t>(std::max<int64_t>(0, lines - 1))) << size;
    auto journal = Journal::open(path_, kHeader, Journal::Mode::resume);
    ASSERT_TRUE(journal.ok()) << size << journal.status().text();
    ASSERT_TRUE(journal->append({{"n", 9}}).ok());
  }
}

TEST_F(JournalTest, RefusesAnotherHeader) {
  ASSERT_TRUE(Journal::open(path_, kHeader, Journal::Mode::fresh).ok());
  const Status status = Journal::open(path_, {{"schema", 1}, {"recipe", "b"}}, Journal::Mode::resume).status();
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_NE(status.message().find("expected recipe \"b\", got \"a\""), std::string::npos) << status.message();
}

TEST_F(JournalTest, SaysThatTheDiskIsFull) {
  auto journal = Journal::open(path_, kHeader, Journal::Mode::fresh);
  ASSERT_TRUE(journal.ok());
  inject_file_faults([](std::string_view operation, const Path& path) {
    return operation == "write" ? io("write: no space ({})", path.string()) : Status();
  });
  EXPECT_EQ(journal->append({{"n", 1}}).status().code(), Code::io);
  inject_file_faults({});
}

}  // namespace
}  // namespace nibble
