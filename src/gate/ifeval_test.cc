#include "gate/ifeval.h"

#include <gtest/gtest.h>

#include <set>

#include "gate/ifeval_text.h"

namespace nibble::gate {
namespace {

Result<Instruction> parse(const std::string& id, const char* arguments) {
  return Instruction::parse(id, parse_json(arguments, "test").value(), "test");
}

bool strict(const std::string& id, const char* arguments, std::string_view reply) {
  const auto instruction = parse(id, arguments);
  EXPECT_TRUE(instruction.ok()) << instruction.status().text();
  const auto follows = instruction->strict(reply);
  EXPECT_TRUE(follows.ok()) << follows.status().text();
  return *follows;
}

struct Row {
  const char* id;
  const char* arguments;
  std::vector<const char*> hits, misses;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> rows = {
      {"keywords:existence",
       R"({"keywords": ["lake", "rain?"]})",
       {"RAIN? The lake is full.", "lakeside, rain?"},
       {"The lake is full.", "rai lake"}},
      {"keywords:frequency",
       R"({"keyword": "rain", "frequency": 2, "relation": "at least"})",
       {"Rain, rain.", "The train brings rain."},
       {"rain", "sun"}},
      {"keywords:frequency",
       R"({"keyword": "rain", "frequency": 2, "relation": "less than"})",
       {"rain"},
       {"rain rain"}},
      {"keywords:forbidden_words",
       R"({"forbidden_words": ["rain", "sun"]})",
       {"The train is late.", "sunny"},
       {"It may RAIN.", "rain-coat"}},
      {"keywords:letter_frequency",
       R"({"letter": "a", "let_frequency": 3, "let_relation": "at least"})",
       {"A banana", "aAa"},
       {"An apple"}},
      {"keywords:letter_frequency",
       R"({"letter": "#", "let_frequency": 2, "let_relation": "less than"})",
       {"#1"},
       {"##"}},
      {"language:response_language",
       R"({"language": "hi"})",
       {"यह एक छोटा जवाब है।", "12345"},
       {"This is a short answer.", "हे एक छोटे उत्तर आहे आणि ते मराठी आहे."}},
      {"length_constraints:number_sentences",
       R"({"num_sentences": 2, "relation": "at least"})",
       {"One came. Two left!", "One.\nTwo."},
       {"One came, and Dr. Two left."}},
      {"length_constraints:number_sentences",
       R"({"num_sentences": 2, "relation": "less than"})",
       {"One."},
       {"One. Two."}},
      {"length_constraints:number_paragraphs",
       R"({"num_paragraphs": 2})",
       {"One\n***\nTwo", "***\nOne\n***\nTwo\n***"},
       {"One\n\nTwo", "One\n***\n***\nTwo", "One *** Two *** Three"}},
      {"length_constraints:number_words",
       R"({"num_words": 4, "relation": "less than"})",
       {"one two three", "snake_case is 1"},
       {"one two three four", "it's not so"}},
      {"length_constraints:nth_paragraph_first_word",
       R"({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Rain"})",
       {"Sun.\n\n\"Rain,\" she said.", "Sun.\n\nrain's here"},
       {"Rain.\n\nSun.", "Sun.\n\nRain.\n\nMore.", "Sun.\nRain.", "Sun.\n\nRainy days"}},
      {"detectable_content:number_placeholders",
       R"({"num_placeholders": 2})",
       {"Dear [name], at [place]", "[][]"},
       {"Dear [name]", "[one\ntwo] [three]"}},
      {"detectable_content:postscript",
       R"({"postscript_marker": "P.S."})",
       {"Bye.\nP.S. Bring tea.", "Bye.\n\np. s. tea"},
       {"Bye.\nPS Bring tea."}},
      {"detectable_content:postscript",
       R"({"postscript_marker": "P.P.S"})",
       {"Bye.\nP.P.S. Bring tea.", "P. P. S tea"},
       {"Bye.\nP.S. Bring tea."}},
      {"detectable_content:postscript", R"({"postscript_marker": "N.B."})", {"Bye. n.b. tea"}, {"Bye. NXB. tea"}},
      {"detectable_format:number_bullet_lists",
       R"({"num_bullets": 2})",
       {"* tea\n* milk", "- tea\n  - milk", "* tea\n- milk\n**Bold** line"},
       {"* tea", "* tea\n* milk\n* rice", "1. tea\n2. milk", "* tea\n* milk\n---"}},
      {"detectable_format:constrained_response",
       "{}",
       {"My answer is no.", "So: My answer is maybe. Ask again."},
       {"No.", "my answer is no."}},
      {"detectable_format:number_highlighted_sections",
       R"({"num_highlights": 2})",
       {"*tea* and *milk*", "**tea** and *milk*", "**tea** **milk**"},
       {"**tea**", "*tea*", "*tea\nand* milk", "* * and * *"}},
      {"detectable_format:multiple_sections",
       R"({"section_spliter": "SECTION", "num_sections": 2})",
       {"SECTION 1\nTea\nSECTION 2\nMilk", "SECTION1 SECTION2 SECTION3"},
       {"SECTION 1\nTea", "Section 1\nTea\nSection 2\nMilk", "SECTION A SECTION B"}},
      {"detectable_format:json_format",
       "{}",
       {R"({"tea": [1, 2.5, null]})", "```json\n{\"tea\": 1}\n```", "```\n[]\n```", "5"},
       {R"({"tea": })", "Here it is: {}", "```json\n{}\n``` done"}},
      {"detectable_format:title",
       "{}",
       {"<<Tea in June>>\nIt rained.", "So <<<a>>> it"},
       {"<Tea>", "<<>>", "<< >>", "<<Tea\nMilk>>"}},
      {"combination:two_responses",
       "{}",
       {"Tea\n******\nMilk", "******\nTea\n******\nMilk\n******"},
       {"Tea\n******\nTea", "Tea", "Tea ****** ****** Milk", "Tea ****** Milk ****** Rice"}},
      {"combination:repeat_prompt",
       R"({"prompt_to_repeat": "What is  Tea?"})",
       {" what is  tea? A drink."},
       {"Sure: What is  Tea?", "What is Tea?"}},
      {"startend:end_checker",
       R"({"end_phrase": "That is all."})",
       {"Tea. that is all.", "\"Tea. That is ALL.\"\n"},
       {"That is all. Or not.", "That is all"}},
      {"startend:quotation", "{}", {"\"Tea.\"", "  \"a\" and \"b\"\n"}, {"Tea.", "\"Tea.", "\"", "“Tea.”"}},
      {"change_case:capital_word_frequency",
       R"({"capital_frequency": 2, "capital_relation": "at least"})",
       {"NASA and ISRO", "I saw A", "A-B C/D", "DON'T"},
       {"Nasa and ISRO", "NASA's probe", "WELL-KNOWN", "1 2 3"}},
      {"change_case:capital_word_frequency",
       R"({"capital_frequency": 1, "capital_relation": "less than"})",
       {"tea"},
       {"TEA"}},
      {"change_case:english_capital",
       "{}",
       {"THE TEA IS HOT.", "TEA 5"},
       {"The tea is hot.", "LE THÉ EST POUR NOUS", "5"}},
      {"change_case:english_lowercase", "{}", {"the tea is hot."}, {"The tea is hot.", "le thé est pour nous"}},
      {"punctuation:no_comma", "{}", {"Tea; milk."}, {"Tea, milk."}},
  };
  return rows;
}

TEST(Ifeval, EveryTypeIsFollowedAndMissed) {
  std::set<std::string_view> seen;
  for (const Row& row : rows()) {
    seen.insert(row.id);
    for (const char* reply : row.hits) EXPECT_TRUE(strict(row.id, row.arguments, reply)) << row.id << ": " << reply;
    for (const char* reply : row.misses) EXPECT_FALSE(strict(row.id, row.arguments, reply)) << row.id << ": " << reply;
    for (const char* blank : {"", " \n\t"}) EXPECT_FALSE(strict(row.id, row.arguments, blank)) << row.id;
  }
  EXPECT_EQ(seen.size(), 25);
  for (const std::string_view id : instruction_types()) EXPECT_TRUE(seen.contains(id)) << id;
}

TEST(Ifeval, LooseForgivesMarkdownAndAFrame) {
  const auto loose = [](const std::string& id, const char* arguments, std::string_view reply) {
    const auto instruction = parse(id, arguments);
    EXPECT_TRUE(instruction.ok());
    EXPECT_FALSE(instruction->strict(reply).value()) << reply;
    return instruction->loose(reply).value();
  };
  EXPECT_TRUE(loose("startend:quotation", "{}", "**\"Tea.\"**"));
  EXPECT_TRUE(loose("detectable_format:json_format", "{}", "Here it is:\n{}"));
  EXPECT_TRUE(loose("detectable_format:json_format", "{}", "{}\nI hope that helps!"));
  EXPECT_TRUE(loose("detectable_format:json_format", "{}", "Here it is:\n{}\nI hope that helps!"));
  EXPECT_TRUE(loose("detectable_format:json_format", "{}", "**Here:**\n**{}**\nI hope that helps!"));
  EXPECT_FALSE(loose("detectable_format:json_format", "{}", "Here it is:\n\n{}\nI hope that helps!\nBye."));
  EXPECT_FALSE(loose("punctuation:no_comma", "{}", "Sure, here:\nTea, milk\nBye, all"));
  EXPECT_FALSE(loose("punctuation:no_comma", "{}", "Sure, here:"));  // without its only line nothing is left
  EXPECT_FALSE(loose("punctuation:no_comma", "{}", ""));
  // What is followed strictly is followed loosely.
  for (const Row& row : rows()) {
    for (const char* reply : row.hits) EXPECT_TRUE(parse(row.id, row.arguments)->loose(reply).value()) << row.id;
  }
}

TEST(Ifeval, ArgumentsThatAreNullAreAbsent) {
  EXPECT_TRUE(strict("punctuation:no_comma", R"({"keywords": null, "num_words": null})", "Tea"));
  EXPECT_EQ(parse("keywords:existence", R"({"keywords": ["tea"], "num_words": null})")->describe(),
            R"(keywords:existence {"keywords":["tea"]})");
  EXPECT_EQ(parse("punctuation:no_comma", "{}")->describe(), "punctuation:no_comma");
}

TEST(Ifeval, RefusesWhatItDoesNotUnderstand) {
  const std::pair<const char*, const char*> bad[] = {
      {"keywords:rhyme", "{}"},
      {"punctuation:no_comma", "[]"},
      {"punctuation:no_comma", R"({"letter": "a"})"},
      {"keywords:existence", "{}"},
      {"keywords:existence", R"({"keywords": []})"},
      {"keywords:existence", R"({"keywords": "tea"})"},
      {"keywords:frequency", R"({"keyword": "", "frequency": 1, "relation": "at least"})"},
      {"keywords:frequency", R"({"keyword": "tea", "frequency": 1, "relation": "at most"})"},
      {"keywords:frequency", R"({"keyword": "tea", "frequency": -1, "relation": "at least"})"},
      {"length_constraints:number_words", R"({"num_words": "5", "relation": "at least"})"},
      {"language:response_language", R"({"language": "xx"})"},
  };
  for (const auto& [id, arguments] : bad) {
    const auto instruction = parse(id, arguments);
    ASSERT_FALSE(instruction.ok()) << id << arguments;
    EXPECT_EQ(instruction.status().code(), Code::corrupt);
    EXPECT_TRUE(instruction.status().message().starts_with("test: ")) << instruction.status().text();
    EXPECT_EQ(instruction.status().message().find('\n'), std::string::npos);
  }
}

TEST(Ifeval, AnyBytesAreJudged) {
  for (const Row& row : rows()) {
    for (const char* reply : {"\xFF\xFE", "a\xC3", "*\xE0\xA4"}) {
      EXPECT_TRUE(parse(row.id, row.arguments)->strict(reply).ok()) << row.id;
    }
  }
  std::string many;
  for (int i = 0; i < 20'000; ++i) many += "*a [<<\" ";
  for (const Row& row : rows()) EXPECT_TRUE(parse(row.id, row.arguments)->loose(many).ok()) << row.id;
}

TEST(Ifeval, CapitalWords) {
  const std::pair<const char*, int> counts[] = {
      {"I'M", 2},      {"I'm", 1},           {"AT&T", 2},       {"U.S. and U.K.", 2}, {"(NASA)", 1},  {"NASA--ISRO", 2},
      {"**NASA**", 1}, {"\"TEA\", said", 1}, {"ÉCOLE élan", 1}, {"3PM 4pm", 1},       {"THEY'LL", 2}, {"नमस्ते", 0}};
  for (const auto& [text, count] : counts) EXPECT_EQ(count_capital_words(text).value(), count) << text;
}

}  // namespace
}  // namespace nibble::gate
