#include "gate/ifeval.h"

#include <algorithm>
#include <cctype>

#include "gate/ifeval_text.h"
#include "io/json_text.h"
#include "io/object_reader.h"
#include "text/blanks.h"
#include "text/case_fold.h"
#include "text/language.h"
#include "text/pattern.h"
#include "text/sentences.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

using Check = Instruction::Check;

constexpr int64_t kMaxCount = 1'000'000;
constexpr size_t kMaxKeywords = 1000;

// "at least" or "less than" a number.
struct Limit {
  bool at_least = true;
  int64_t number = 0;
  bool holds(int64_t count) const { return at_least ? count >= number : count < number; }
};

Limit read_limit(ObjectReader& reader, const char* number, const char* relation) {
  constexpr Word<bool> kRelations[] = {{"at least", true}, {"less than", false}};
  Limit limit;
  reader.require(number);
  reader.require(relation);
  reader.whole_number(number, 0, kMaxCount, limit.number);
  reader.word(relation, kRelations, limit.at_least);
  return limit;
}

int64_t read_count(ObjectReader& reader, const char* key) {
  int64_t count = 0;
  reader.require(key);
  reader.whole_number(key, 0, kMaxCount, count);
  return count;
}

std::string read_phrase(ObjectReader& reader, const char* key) {
  std::string phrase;
  reader.require(key);
  reader.text(key, phrase);
  phrase = text::trimmed(phrase);
  if (reader.ok() && phrase.empty()) reader.fail(corrupt("{}: {}: expected words, got none", reader.where(), key));
  return phrase;
}

std::vector<std::string> read_phrases(ObjectReader& reader, const char* key) {
  std::vector<std::string> phrases;
  reader.require(key);
  reader.texts(key, phrases);
  if (reader.ok() && (phrases.empty() || phrases.size() > kMaxKeywords)) {
    reader.fail(corrupt("{}: {}: expected 1 to {} texts, got {}", reader.where(), key, kMaxKeywords, phrases.size()));
  }
  return phrases;
}

// The words as they stand, whatever their case; `before` and `behind` are regular expressions.
text::Pattern literal(ObjectReader& reader, std::string_view words, std::string_view before = "",
                      std::string_view behind = "") {
  std::string pattern = fmt::format("(?i){}", before);
  for (const char c : text::sanitize_utf8(words)) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || (static_cast<unsigned char>(c) & 0x80) != 0;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  auto compiled = text::Pattern::compile(pattern + std::string(behind), reader.where());
  if (compiled.ok()) return std::move(compiled).value();
  reader.fail(compiled.status());
  return text::Pattern::compile("", reader.where()).value();
}

Result<int64_t> occurrences(const text::Pattern& pattern, std::string_view text) {
  NIBBLE_TRY(matches, pattern.all_matches(text));
  return static_cast<int64_t>(matches.size());
}

bool speaks(std::string_view text, std::string_view language) {
  const std::string_view guess = text::guess_language(text);
  return guess.empty() || guess == language;
}

// A check that counts and holds the count against a limit.
template <class Count>
Check limited(Limit limit, Count count) {
  return [limit, count = std::move(count)](std::string_view text) -> Result<bool> {
    NIBBLE_TRY(found, Result<int64_t>(count(text)));
    return limit.holds(found);
  };
}

Check existence(ObjectReader& reader) {
  std::vector<text::Pattern> keywords;
  for (const std::string& word : read_phrases(reader, "keywords")) keywords.push_back(literal(reader, word));
  return [keywords](std::string_view text) -> Result<bool> {
    for (const text::Pattern& keyword : keywords) {
      NIBBLE_TRY(found, keyword.matches(text));
      if (!found) return false;
    }
    return true;
  };
}

Check frequency(ObjectReader& reader) {
  const text::Pattern keyword = literal(reader, read_phrase(reader, "keyword"));
  return limited(read_limit(reader, "frequency", "relation"),
                 [keyword](std::string_view text) { return occurrences(keyword, text); });
}

Check forbidden_words(ObjectReader& reader) {
  std::vector<text::Pattern> words;
  for (const std::string& word : read_phrases(reader, "forbidden_words")) {
    words.push_back(literal(reader, word, "\\b", "\\b"));
  }
  return [words](std::string_view text) -> Result<bool> {
    for (const text::Pattern& word : words) {
      NIBBLE_TRY(found, word.matches(text));
      if (found) return false;
    }
    return true;
  };
}

Check letter_frequency(ObjectReader& reader) {
  const text::Pattern letter = literal(reader, read_phrase(reader, "letter"));
  return limited(read_limit(reader, "let_frequency", "let_relation"),
                 [letter](std::string_view text) { return occurrences(letter, text); });
}

Check response_language(ObjectReader& reader) {
  const std::string language = read_phrase(reader, "language");
  if (reader.ok() && !text::is_guessed_language(language)) {
    reader.fail(corrupt("{}: language: expected a language that can be told, got {}", reader.where(), language));
  }
  return [language](std::string_view text) -> Result<bool> { return speaks(text, language); };
}

Check number_sentences(ObjectReader& reader) {
  return limited(read_limit(reader, "num_sentences", "relation"), [](std::string_view text) {
    return static_cast<int64_t>(text::sentences(text, text::SentenceSplitter::kNoLimit).size());
  });
}

Check number_paragraphs(ObjectReader& reader) {
  const int64_t count = read_count(reader, "num_paragraphs");
  return [count](std::string_view text) -> Result<bool> { return count_divided_paragraphs(text) == count; };
}

Check number_words(ObjectReader& reader) {
  return limited(read_limit(reader, "num_words", "relation"), count_ifeval_words);
}

Check nth_paragraph_first_word(ObjectReader& reader) {
  const int64_t count = read_count(reader, "num_paragraphs"), n = read_count(reader, "nth_paragraph");
  const std::string word = text::case_fold(read_phrase(reader, "first_word"));
  return [count, n, word](std::string_view text) -> Result<bool> {
    const NthParagraph found = nth_paragraph(text, n);
    return found.count == count && found.first_word == word;
  };
}

Check number_placeholders(ObjectReader& reader) {
  return limited({.number = read_count(reader, "num_placeholders")}, count_placeholders);
}

Check postscript(ObjectReader& reader) {
  const std::string marker = read_phrase(reader, "postscript_marker");
  std::string_view pattern;
  if (marker == "P.P.S") pattern = R"(p\.\s?p\.\s?s)";
  if (marker == "P.S.") pattern = R"(p\.\s?s\.)";
  const text::Pattern found = literal(reader, pattern.empty() ? marker : "", pattern);
  return [found](std::string_view text) { return found.matches(text); };
}

Check number_bullet_lists(ObjectReader& reader) {
  const int64_t count = read_count(reader, "num_bullets");
  return [count](std::string_view text) -> Result<bool> { return count_bullets(text) == count; };
}

Check constrained_response(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> {
    constexpr std::string_view kOptions[] = {"My answer is yes.", "My answer is no.", "My answer is maybe."};
    return std::any_of(std::begin(kOptions), std::end(kOptions),
                       [&](std::string_view option) { return text.find(option) != std::string_view::npos; });
  };
}

Check number_highlighted_sections(ObjectReader& reader) {
  return limited({.number = read_count(reader, "num_highlights")}, count_highlights);
}

Check multiple_sections(ObjectReader& reader) {
  const std::string name = read_phrase(reader, "section_spliter");
  // Unlike keywords the name of a section is taken letter by letter.
  const text::Pattern section = literal(reader, name, "(?-i)", R"(\s?\d+)");
  return limited({.number = read_count(reader, "num_sections")},
                 [section](std::string_view text) { return occurrences(section, text); });
}

Check json_format(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> { return is_json_document(text); };
}

Check title(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> { return has_title(text); };
}

Check two_responses(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> { return has_two_responses(text); };
}

Check repeat_prompt(ObjectReader& reader) {
  const std::string prompt = text::case_fold(read_phrase(reader, "prompt_to_repeat"));
  return [prompt](std::string_view text) -> Result<bool> {
    return text::case_fold(text::trimmed(text)).starts_with(prompt);
  };
}

Check end_checker(ObjectReader& reader) {
  const std::string phrase = text::case_fold(read_phrase(reader, "end_phrase"));
  return [phrase](std::string_view text) -> Result<bool> {
    text = text::trimmed(text);
    return text::case_fold(text.substr(0, text.find_last_not_of('"') + 1)).ends_with(phrase);
  };
}

Check quotation(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> {
    text = text::trimmed(text);
    return text.size() > 1 && text.front() == '"' && text.back() == '"';
  };
}

Check capital_word_frequency(ObjectReader& reader) {
  return limited(read_limit(reader, "capital_frequency", "capital_relation"), count_capital_words);
}

Check english_capital(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> {
    NIBBLE_TRY(upper, is_all_upper(text));
    return upper && speaks(text, "en");
  };
}

Check english_lowercase(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> {
    NIBBLE_TRY(lower, is_all_lower(text));
    return lower && speaks(text, "en");
  };
}

Check no_comma(ObjectReader&) {
  return [](std::string_view text) -> Result<bool> { return text.find(',') == std::string_view::npos; };
}

struct Type {
  std::string_view id;
  Check (*make)(ObjectReader& arguments);  // what is wrong with the arguments is the reader's
};

constexpr Type kTypes[] = {
    {"keywords:existence", existence},
    {"keywords:frequency", frequency},
    {"keywords:forbidden_words", forbidden_words},
    {"keywords:letter_frequency", letter_frequency},
    {"language:response_language", response_language},
    {"length_constraints:number_sentences", number_sentences},
    {"length_constraints:number_paragraphs", number_paragraphs},
    {"length_constraints:number_words", number_words},
    {"length_constraints:nth_paragraph_first_word", nth_paragraph_first_word},
    {"detectable_content:number_placeholders", number_placeholders},
    {"detectable_content:postscript", postscript},
    {"detectable_format:number_bullet_lists", number_bullet_lists},
    {"detectable_format:constrained_response", constrained_response},
    {"detectable_format:number_highlighted_sections", number_highlighted_sections},
    {"detectable_format:multiple_sections", multiple_sections},
    {"detectable_format:json_format", json_format},
    {"detectable_format:title", title},
    {"combination:two_responses", two_responses},
    {"combination:repeat_prompt", repeat_prompt},
    {"startend:end_checker", end_checker},
    {"startend:quotation", quotation},
    {"change_case:capital_word_frequency", capital_word_frequency},
    {"change_case:english_capital", english_capital},
    {"change_case:english_lowercase", english_lowercase},
    {"punctuation:no_comma", no_comma},
};

std::string_view without_last_line(std::string_view text) {
  const size_t end = text.rfind('\n');
  return end == std::string_view::npos ? std::string_view() : text.substr(0, end);
}

std::string_view without_first_line(std::string_view text) {
  const size_t end = text.find('\n');
  return end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
}

}  // namespace

std::vector<std::string_view> instruction_types() {
  std::vector<std::string_view> ids;
  for (const Type& type : kTypes) ids.push_back(type.id);
  return ids;
}

Result<Instruction> Instruction::parse(const std::string& id, const Json& arguments, const std::string& where) {
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.id == id; });
  if (type == std::end(kTypes)) {
    return corrupt("{}: expected one of the {} types of instructions, got \"{}\"", where, std::size(kTypes),
                   text::clipped(id, 80));
  }
  Json given = Json::object();
  if (!arguments.is_object()) return corrupt("{}: {}: expected arguments, got {}", where, id, arguments.type_name());
  for (const auto& item : arguments.items()) {
    if (!item.value().is_null()) given[item.key()] = item.value();
  }
  ObjectReader reader(given, where + ": " + id);
  Check check = type->make(reader);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return Instruction(id, compact_json(given), std::move(check));
}

Result<bool> Instruction::strict(std::string_view reply) const {
  if (text::trimmed(reply).empty()) return false;
  return check_(text::sanitize_utf8(reply));
}

Result<bool> Instruction::loose(std::string_view reply) const {
  for (const std::string_view part :
       {reply, text::trimmed(without_first_line(reply)), text::trimmed(without_last_line(reply)),
        text::trimmed(without_last_line(without_first_line(reply)))}) {
    std::string bare(part);
    std::erase(bare, '*');
    for (const std::string_view variant : {part, std::string_view(bare)}) {
      NIBBLE_TRY(follows, strict(variant));
      if (follows) return true;
    }
  }
  return false;
}

std::string Instruction::describe() const {
  return arguments_ == "{}" ? id_ : id_ + " " + arguments_;
}

}  // namespace nibble::gate
