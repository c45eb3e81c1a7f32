#include "text/vocative.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

using Names = std::vector<std::string>;

Names wrong(std::string_view text, const Names& allowed) {
  const auto names = wrong_names(text, allowed);
  EXPECT_TRUE(names.ok()) << names.status().text();
  return names.ok() ? *names : Names{};
}

TEST(WrongNames, AreThoseOfOthers) {
  const Names allowed = {"Rajesh", "Namaskara", "Anna Maria"};
  EXPECT_EQ(wrong("Hello, Rajesh! It rains.", allowed), Names());
  EXPECT_EQ(wrong("Hello RAJESH.", allowed), Names());
  EXPECT_EQ(wrong("Hello, Ravi! It is late, Suresh.", allowed), (Names{"Ravi", "Suresh"}));
  EXPECT_EQ(wrong("Sure, Namaskara!", allowed), Names());
  EXPECT_EQ(wrong("Hi Maria.", allowed), Names());
  EXPECT_EQ(wrong("You are **Ravi**.", allowed), Names{"Ravi"});
  EXPECT_EQ(wrong("Rajesh and Ravi met.", {}), Names());
  EXPECT_EQ(wrong_names("\xff", allowed).status().code(), Code::invalid_argument);
}

}  // namespace
}  // namespace nibble::text
