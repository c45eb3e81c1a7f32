#include "text/novel.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

using Facts = std::vector<std::string>;

constexpr const char* kContext =
    "You are Annie, a voice companion. The user is Rajesh. What did Arun say about the trip? results";

TEST(Novel, InventionsOverAnEmptyResult) {
  EXPECT_EQ(novel("Arun said it was moved to Friday.", kContext), Facts{"Friday"});
  EXPECT_EQ(novel("I do not remember anything Arun said about the trip.", kContext), Facts());
}

TEST(Novel, WhatIsAFact) {
  const std::pair<const char*, Facts> cases[] = {
      {"It was at 9:30 in room B12.", {"9", "30", "B12"}},
      {"He wants two or one or zero.", {"two"}},
      {"About twenty-five people, thirty four cars and hundreds of bikes.", {"twenty-five", "thirty four", "hundreds"}},
      {"It was on a monday in january.", {"monday", "january"}},
      {"It may rain, and they march on.", {}},
      {"It is in May. May I go? March is warm.", {"May", "March"}},
      {"He left this morning, back tomorrow.", {"morning", "tomorrow"}},
      {"Well, I am sure Meera met Dr. Rao.", {"Meera", "Dr", "Rao"}},
      {"Trips are nice. Nothing else.\nMaybe so.", {}},
      {"Arun's and Rajesh's trips. ANNIE", {}},
      {"It was Goa, then goa, Goas.", {"Goa"}},
      {"In ಬೆಂಗಳೂರು it rains. Étude, Élan.", {"Élan"}},
      {"", {}},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(novel(text, kContext), expected) << text;
}

TEST(Novel, OneFactInManySpellings) {
  const std::pair<const char*, const char*> known[] = {
      {"It costs 1,500 rupees.", "1500"},
      {"It costs ₹1,50,000.", "150000"},
      {"at 09:05", "9 5"},
      {"on the 3rd", "{\"day\": 3}"},
      {"at 5pm", "5 p.m."},
      {"twenty five people", "25"},
      {"25 people", "twenty-five"},
      {"on Fridays", "friday"},
      {"seven", "7"},
      {"Rao's house", "RAO"},
      {"It was Élan", "e\u0301lan"},
  };
  for (const auto& [text, context] : known) EXPECT_EQ(novel(text, context), Facts()) << text;
  EXPECT_EQ(novel("at 0", "00"), Facts());
  EXPECT_EQ(novel("at 10", "1"), Facts{"10"});
}

TEST(Novel, AnyBytes) {
  EXPECT_EQ(novel("\xff It is \xff Goa \xe2\x82", "\xfe"), Facts{"Goa"});
}

}  // namespace
}  // namespace nibble::text
