#include "io/jsonl.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace nibble {
namespace {

class JsonlTest : public testing::Test {
 protected:
  JsonlTest() : file_(std::filesystem::temp_directory_path() / ("nibble-jsonl-" + std::to_string(::getpid()))) {}
  ~JsonlTest() override { std::filesystem::remove(file_); }

  Status read(const std::string& text) {
    lines_.clear();
    EXPECT_TRUE(write_file(file_, text).ok());
    return for_each_json_line(file_, [&](Json& object, int64_t line) {
      lines_.push_back(std::to_string(line) + object.dump());
      return Status();
    });
  }
  const Path file_;
  std::vector<std::string> lines_;
};

TEST_F(JsonlTest, SkipsBlankLinesAndNeedsNoFinalNewline) {
  ASSERT_TRUE(read("{\"a\":1}\n\n \r\n{\"b\":2}\r\n{}").ok());
  EXPECT_EQ(lines_, (std::vector<std::string>{"1{\"a\":1}", "4{\"b\":2}", "5{}"}));
  EXPECT_TRUE(read("").ok());
}

TEST_F(JsonlTest, ErrorNamesTheLine) {
  EXPECT_NE(read("{}\n{\"a\":}\n").message().find(":2: expected valid JSON"), std::string::npos);
  EXPECT_NE(read("{}\n[1]\n").message().find(":2: expected a JSON object, got array"), std::string::npos);
  EXPECT_EQ(lines_.size(), 1u);
}

}  // namespace
}  // namespace nibble
