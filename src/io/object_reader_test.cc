#include "io/object_reader.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

enum class Colour { red, green };
constexpr Word<Colour> kColours[] = {{"red", Colour::red}, {"green", Colour::green}};

struct Fields {
  std::string text = "none";
  bool flag = false;
  double number = 0;
  int count = 0;
  Colour colour = Colour::red;
  std::vector<std::string> texts;
};

Status read(const Json& json, Fields& out) {
  ObjectReader reader(json, "file");
  reader.text("text", out.text);
  reader.flag("flag", out.flag);
  reader.number("number", -1, 1, out.number);
  reader.whole_number("count", 0, 9, out.count);
  reader.word("colour", kColours, out.colour);
  reader.texts("texts", out.texts);
  return reader.finish();
}

TEST(ObjectReader, ReadsWhatIsThereAndLeavesTheRest) {
  Fields all;
  ASSERT_TRUE(
      read({{"text", "a"}, {"flag", true}, {"number", -0.5}, {"count", 9}, {"colour", "green"}, {"texts", {"x", "y"}}},
           all)
          .ok());
  EXPECT_EQ(all.text, "a");
  EXPECT_TRUE(all.flag);
  EXPECT_EQ(all.number, -0.5);
  EXPECT_EQ(all.count, 9);
  EXPECT_EQ(all.colour, Colour::green);
  EXPECT_EQ(all.texts, (std::vector<std::string>{"x", "y"}));
  Fields none;
  ASSERT_TRUE(read(Json::object(), none).ok());
  EXPECT_EQ(none.text, "none");
}

TEST(ObjectReader, SaysWhatIsWrong) {
  Fields out;
  const std::pair<Json, const char*> cases[] = {
      {Json::array(), "file: expected an object, got array"},
      {{{"text", 1}}, "file: text: expected a text, got 1"},
      {{{"flag", "yes"}}, "file: flag: expected true or false, got \"yes\""},
      {{{"number", 1.5}}, "file: number: expected a number from -1 to 1, got 1.5"},
      {{{"count", 1.0}}, "file: count: expected a whole number from 0 to 9, got 1.0"},
      {{{"count", 18446744073709551615ULL}},
       "file: count: expected a whole number from 0 to 9, got 18446744073709551615"},
      {{{"colour", "blue"}}, "file: colour: expected one of red, green, got \"blue\""},
      {{{"texts", {"a", 1}}}, "file: texts: expected a list of texts, got [\"a\",1]"},
      {{{"txt", "a"}}, "file: expected a key among text, flag, number, count, colour, texts, got \"txt\""},
      {{{"text", 1}, {"flag", 1}}, "file: text: expected a text, got 1"},
  };
  for (const auto& [json, message] : cases) {
    const Status status = read(json, out);
    EXPECT_EQ(status.code(), Code::corrupt);
    EXPECT_EQ(status.message(), message);
  }
  const Json empty = Json::object();
  ObjectReader reader(empty, "file");
  reader.require("text");
  EXPECT_EQ(reader.finish().message(), "file: expected the key \"text\", got none");
}

}  // namespace
}  // namespace nibble
