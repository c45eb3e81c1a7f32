#include "quantize/partial_folder.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using test::TemporaryFolder;

class Partial : public testing::Test {
 protected:
  Path output() const { return folder_ / "out"; }
  Path root() const { return folder_ / "out.partial"; }
  PartialFolder open(const std::string& key = "k") {
    Result<PartialFolder> folder = PartialFolder::open(output(), key);
    EXPECT_TRUE(folder.ok()) << folder.status().text();
    return std::move(folder).value();
  }

  TemporaryFolder folder_;
};

TEST_F(Partial, CommitGivesTheModelItsName) {
  {
    PartialFolder partial = open();
    EXPECT_FALSE(partial.resumed());
    ASSERT_TRUE(write_file(partial.path() / "model.safetensors", "m").ok());
    ASSERT_TRUE(write_file(partial.work() / "layer.0", "w").ok());
    ASSERT_TRUE(write_file(partial.records(), "r").ok());
    EXPECT_FALSE(std::filesystem::exists(output()));
    ASSERT_TRUE(partial.commit().ok());
  }
  EXPECT_EQ(*read_file(output() / "model.safetensors"), "m");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(output()), {}), 1);
  EXPECT_FALSE(std::filesystem::exists(root()));
  const Result<PartialFolder> again = PartialFolder::open(output(), "k");
  EXPECT_EQ(again.status().code(), Code::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(root()));
}

TEST_F(Partial, StaysOnlyWithSomethingToGoOnWith) {
  { PartialFolder partial = open(); }
  EXPECT_FALSE(std::filesystem::exists(root()));
  {
    PartialFolder partial = open();
    ASSERT_TRUE(write_file(partial.path() / "config.json", "{}").ok());
    ASSERT_TRUE(write_file(partial.records(), "[]").ok());
  }
  EXPECT_FALSE(std::filesystem::exists(root()));
  {
    PartialFolder partial = open();
    ASSERT_TRUE(write_file(partial.work() / "layer.0", "w").ok());
  }
  EXPECT_TRUE(open().resumed());
}

TEST_F(Partial, AnotherJobStartsAnew) {
  {
    PartialFolder partial = open("a");
    ASSERT_TRUE(write_file(partial.path() / "model-00001-of-00002.safetensors", "m").ok());
  }
  {
    PartialFolder partial = open("a");
    EXPECT_TRUE(partial.resumed());
    EXPECT_TRUE(std::filesystem::exists(partial.path() / "model-00001-of-00002.safetensors"));
  }
  PartialFolder partial = open("b");
  EXPECT_FALSE(partial.resumed());
  EXPECT_FALSE(std::filesystem::exists(partial.path() / "model-00001-of-00002.safetensors"));
}

TEST_F(Partial, HalfWrittenFilesOfAKilledProcessGo) {
  {
    PartialFolder partial = open();
    ASSERT_TRUE(write_file(partial.path() / "model-00001-of-00002.safetensors", "m").ok());
  }
  std::ofstream(root() / "model" / "model-00002-of-00002.safetensors.tmp-77") << "half";
  PartialFolder partial = open();
  EXPECT_TRUE(partial.resumed());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(partial.path()), {}), 1);
}

TEST_F(Partial, OneProcessAtATime) {
  PartialFolder partial = open();
  const Result<PartialFolder> second = PartialFolder::open(output(), "k");
  EXPECT_EQ(second.status().code(), Code::unavailable);
  EXPECT_TRUE(std::filesystem::exists(partial.path()));
}

TEST_F(Partial, CommitTakesNobodysPlace) {
  PartialFolder partial = open();
  ASSERT_TRUE(write_file(partial.path() / "model.safetensors", "m").ok());
  std::filesystem::create_directories(output());
  std::ofstream(output() / "other") << "theirs";
  EXPECT_EQ(partial.commit().code(), Code::io);
  EXPECT_EQ(*read_file(output() / "other"), "theirs");
}

}  // namespace
}  // namespace nibble::quantize
