// However the writing of a sidecar is broken off, the next attempt makes the same file.
#include "train/sidecar_writer.h"

#include <gtest/gtest.h>

#include "tests/support/sidecar_test.h"

namespace nibble::train {
namespace {

using SidecarWriterTest = SidecarTest;

TEST_F(SidecarWriterTest, GoesOnAfterCtrlC) {
  const std::string whole = written(long_);
  for (int after = 1; after <= 3; ++after) {
    FakeTeacher first, second;
    first.cancel_after = after;
    const Status stopped = write(first, long_, path_);
    EXPECT_EQ(stopped.code(), Code::cancelled) << stopped.text();
    EXPECT_FALSE(std::filesystem::exists(path_));
    cx_.cancel = {};
    SidecarHeader later = header_of();
    later.created = "2002-02-02T00:00:00Z";
    ASSERT_TRUE(write(second, long_, path_, later).ok());
    EXPECT_EQ(first.calls + second.calls, 4);  // the sample of one id has no row
    EXPECT_TRUE(*read_file(path_) == whole);
    std::filesystem::remove(path_);
  }
}

// However a process or a machine ends, the next attempt makes the same file.
TEST_F(SidecarWriterTest, GoesOnFromWhateverIsLeft) {
  const std::string whole = written(long_);
  const Path part = folder_ / "teacher.hid.part", journal = folder_ / "teacher.hid.journal";
  struct Left {
    const char* name;
    void (*damage)(std::string& part, std::string& journal);
    int calls;  // of the teacher that are needed still
  };
  const Left cases[] = {
      {"nothing is wrong", [](auto&, auto&) {}, 1},
      {"rows without a line", [](auto& p, auto&) { p += "some more bytes"; }, 1},
      {"half a line", [](auto&, auto& j) { j.resize(j.size() - 1); }, 2},
      {"a line that is not a line", [](auto&, auto& j) { j[j.size() - 2] = 'x'; }, 2},
      {"no line", [](auto&, auto& j) { j.clear(); }, 4},
      {"half a line alone", [](auto&, auto& j) { j.resize(10); }, 4},
      {"rows are missing", [](auto& p, auto&) { p.resize(p.size() - 1); }, 2},
      {"all rows are missing", [](auto& p, auto&) { p.resize(512); }, 4},
      {"a row of the first sample is another", [](auto& p, auto&) { p[1000] = static_cast<char>(p[1000] ^ 1); }, 4},
      {"a row of the third sample is another",
       [](auto& p, auto&) { p[p.size() - 9] = static_cast<char>(p[p.size() - 9] ^ 1); }, 2},
      {"nothing but the magic", [](auto& p, auto& j) { p.resize(5), j.clear(); }, 4},
      {"nothing", [](auto& p, auto& j) { p.clear(), j.clear(); }, 4},
  };
  for (const Left& c : cases) {
    SCOPED_TRACE(c.name);
    FakeTeacher first, second;
    first.cancel_after = 3;
    EXPECT_EQ(write(first, long_, path_).code(), Code::cancelled);
    cx_.cancel = {};
    std::string p = *read_file(part), j = *read_file(journal);
    c.damage(p, j);
    ASSERT_TRUE(write_file(part, p).ok() && write_file(journal, j).ok());
    const Status status = write(second, long_, path_);
    ASSERT_TRUE(status.ok()) << status.text();
    EXPECT_EQ(second.calls, c.calls);
    EXPECT_TRUE(*read_file(path_) == whole);
    std::filesystem::remove(path_);
  }
}

TEST_F(SidecarWriterTest, AnyFaultLeavesNoFileAndTheNextAttemptCompletesIt) {
  const std::string whole = written(long_);
  for (const char* failing : {"open", "read", "write", "truncate", "sync", "rename"}) {
    for (int at = 0;; ++at) {
      int seen = 0;
      inject_file_faults([&](std::string_view operation, const Path& path) {
        const bool now = operation == failing && seen++ == at;
        return now ? io("{}: injected ({})", operation, path.string()) : Status();
      });
      FakeTeacher teacher;
      const Status status = write(teacher, long_, path_);
      inject_file_faults({});
      if (status.ok()) break;  // the operation happens less often
      EXPECT_FALSE(std::filesystem::exists(path_)) << failing;
      ASSERT_TRUE(write(teacher, long_, path_).ok()) << failing << " " << at;
      EXPECT_TRUE(*read_file(path_) == whole) << failing << " " << at;
      std::filesystem::remove(path_);
    }
    EXPECT_TRUE(*read_file(path_) == whole) << failing;
    std::filesystem::remove(path_);
  }
}

TEST_F(SidecarWriterTest, WritesAlone) {
  SidecarHeader header = header_of();
  header.rows = 3;
  const std::vector<SidecarEntry> plan = {{std::string(kSidecarKey, 'a'), 0, 3}};
  const auto first = SidecarWriter::open(path_, header, plan);
  ASSERT_TRUE(first.ok()) << first.status().text();
  EXPECT_EQ(SidecarWriter::open(path_, header, plan).status().code(), Code::unavailable);
}

TEST_F(SidecarWriterTest, RefusesToGoOnForAnother) {
  FakeTeacher first;
  first.cancel_after = 2;
  EXPECT_EQ(write(first, long_, path_).code(), Code::cancelled);
  cx_.cancel = {};
  const std::string part = *read_file(folder_ / "teacher.hid.part");
  const auto refused = [&](const std::vector<Sample>& samples, const SidecarHeader& header, const char* word) {
    const Status status = write(teacher_, samples, path_, header);
    EXPECT_EQ(status.code(), Code::invalid_argument) << word;
    EXPECT_NE(status.text().find(word), std::string::npos) << status.text();
    EXPECT_FALSE(status.hint().empty());
    EXPECT_TRUE(*read_file(folder_ / "teacher.hid.part") == part);
  };
  SidecarHeader other = header_of();
  other.teacher = "another";
  refused(long_, other, "teacher another");
  refused(short_, header_of(), "conversations");
  std::vector<Sample> reordered = long_;
  std::swap(reordered[0], reordered[2]);
  refused(reordered, header_of(), "conversations");
  ASSERT_TRUE(write_file(folder_ / "foreign.part", "precious").ok());
  EXPECT_EQ(write(teacher_, long_, folder_ / "foreign").code(), Code::invalid_argument);
  EXPECT_EQ(*read_file(folder_ / "foreign.part"), "precious");
}

}  // namespace
}  // namespace nibble::train
