#include "base/file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace nibble {
namespace {

class FileTest : public testing::Test {
 protected:
  FileTest() : dir_(std::filesystem::temp_directory_path() / ("nibble-file-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(dir_);
  }
  ~FileTest() override {
    inject_file_faults({});
    std::filesystem::remove_all(dir_);
  }
  size_t entries() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {})); }
  const Path dir_;
};

TEST_F(FileTest, WritesThenMapsTheSameBytes) {
  ASSERT_TRUE(write_file(dir_ / "a", "hello").ok());
  auto file = MappedFile::open(dir_ / "a");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->bytes().size(), 5u);
  EXPECT_EQ(*read_file(dir_ / "a"), "hello");
}

TEST_F(FileTest, EmptyFileMapsToNothing) {
  ASSERT_TRUE(write_file(dir_ / "a", "").ok());
  EXPECT_EQ(*read_file(dir_ / "a"), "");
}

TEST_F(FileTest, MissingFileIsNotFoundAndFolderIsIo) {
  EXPECT_EQ(read_file(dir_ / "no").status().code(), Code::not_found);
  EXPECT_EQ(read_file(dir_).status().code(), Code::io);
}

TEST_F(FileTest, RefusesAFileOverTheLimit) {
  ASSERT_TRUE(write_file(dir_ / "a", "hello").ok());
  EXPECT_EQ(read_file(dir_ / "a", 4).status().code(), Code::corrupt);
}

// Whatever operation fails, the old file is whole and nothing else is left.
TEST_F(FileTest, EveryFaultKeepsTheOldFile) {
  for (const char* failing : {"open", "write", "sync", "rename"}) {
    inject_file_faults({});
    ASSERT_TRUE(write_file(dir_ / "a", "old").ok());
    inject_file_faults([&](std::string_view operation, const Path& path) {
      return operation == failing ? io("{}: injected ({})", operation, path.string()) : Status();
    });
    EXPECT_FALSE(write_file(dir_ / "a", "new").ok()) << failing;
    inject_file_faults({});
    EXPECT_EQ(*read_file(dir_ / "a"), "old") << failing;
    EXPECT_EQ(entries(), 1u) << failing;
  }
}

TEST_F(FileTest, UncommittedFolderLeavesNothing) {
  {
    auto folder = OutputFolder::create(dir_ / "out");
    ASSERT_TRUE(folder.ok());
    ASSERT_TRUE(write_file(folder->path() / "x", "1").ok());
  }
  EXPECT_EQ(entries(), 0u);
}

TEST_F(FileTest, CommittedFolderReplacesAnEmptyOneButNeverAFullOne) {
  std::filesystem::create_directories(dir_ / "out");
  {
    auto folder = OutputFolder::create(dir_ / "out");
    ASSERT_TRUE(folder.ok());
    ASSERT_TRUE(write_file(folder->path() / "x", "1").ok());
    ASSERT_TRUE(folder->commit().ok());
  }
  EXPECT_EQ(*read_file(dir_ / "out" / "x"), "1");
  EXPECT_EQ(OutputFolder::create(dir_ / "out").status().code(), Code::invalid_argument);
}

TEST_F(FileTest, AFreshFolderTakesThePlaceOfTheOld) {
  const Path fresh = dir_ / "fresh", target = dir_ / "target";
  for (const std::string text : {"first", "second"}) {  // the first time there is no target yet
    ASSERT_TRUE(std::filesystem::create_directory(fresh));
    ASSERT_TRUE(write_file(fresh / "file", text).ok());
    ASSERT_TRUE(write_file(fresh / ("only in " + text), "").ok());
    ASSERT_TRUE(replace_folder(fresh, target).ok());
    EXPECT_FALSE(std::filesystem::exists(fresh));
    EXPECT_EQ(*read_file(target / "file"), text);
  }
  EXPECT_FALSE(std::filesystem::exists(target / "only in first"));
  EXPECT_EQ(replace_folder(dir_ / "absent", target).code(), Code::not_found);
  EXPECT_EQ(*read_file(target / "file"), "second");  // nothing is lost
}

TEST_F(FileTest, OnlyOneHasTheLock) {
  Result<AppendFile> first = AppendFile::open(dir_ / "a"), second = AppendFile::open(dir_ / "a");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_TRUE(first->lock().ok());
  EXPECT_EQ(second->lock().code(), Code::unavailable);
  { const AppendFile ends = std::move(*first); }
  EXPECT_TRUE(second->lock().ok());
}

TEST(AppendFile, GrowsAcrossOpenings) {
  const Path path = Path(testing::TempDir()) / "nibble_append_file";
  std::filesystem::remove(path);
  for (const char* line : {"one\n", "two\n"}) {
    Result<AppendFile> file = AppendFile::open(path);
    ASSERT_TRUE(file.ok()) << file.status().text();
    ASSERT_TRUE(file->write(line).ok());
    const AppendFile moved = std::move(*file);
    EXPECT_EQ(read_file(path)->substr(0, 4), "one\n");  // visible before it is closed
  }
  EXPECT_EQ(*read_file(path), "one\ntwo\n");
  std::filesystem::remove(path);
  EXPECT_EQ(AppendFile::open("/no/such/folder/x").status().code(), Code::not_found);
}

TEST_F(FileTest, WhatGrewIsCutAndTakesItsName) {
  ASSERT_TRUE(write_file(dir_ / "a", "old").ok());
  Result<AppendFile> file = AppendFile::open(dir_ / "a.part");
  ASSERT_TRUE(file.ok() && file->write("one two").ok());
  ASSERT_TRUE(file->truncate(4).ok());
  ASSERT_TRUE(file->write("three").ok());
  EXPECT_EQ(*read_file(dir_ / "a.part"), "one three");
  for (const char* failing : {"sync", "rename"}) {
    inject_file_faults([&](std::string_view operation, const Path& path) {
      return operation == failing ? io("{}: injected ({})", operation, path.string()) : Status();
    });
    EXPECT_EQ(file->commit(dir_ / "a").code(), Code::io);
    EXPECT_EQ(*read_file(dir_ / "a.part"), "one three");
    inject_file_faults({});
    EXPECT_EQ(*read_file(dir_ / "a"), "old");
  }
  ASSERT_TRUE(file->commit(dir_ / "a").ok());
  EXPECT_EQ(*read_file(dir_ / "a"), "one three");
  EXPECT_EQ(entries(), 1u);
}

}  // namespace
}  // namespace nibble
