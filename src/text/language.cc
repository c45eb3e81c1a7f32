#include "text/language.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "text/case_fold.h"
#include "text/characters.h"
#include "text/utf8.h"
#include "text/words.h"

namespace nibble::text {
namespace {

struct StopWords {
  std::string_view language;
  std::string_view words;  // the most frequent words without a meaning of their own, case-folded
};

constexpr StopWords kLatin[] = {
    {"en",
     "the of and to in is that it for was with as his on be at by this had not are but from or have an they which you "
     "were her she there would their we him been has when who will no more if out so what up its about than into them "
     "can only other could these may then do my your how our all a i"},
    {"es",
     "de la que el en y los se del las por un para con no una su al lo como más pero sus le ya o este sí porque esta "
     "entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante es son está"},
    {"pt",
     "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou quando "
     "muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos é são está você"},
    {"fr",
     "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son sa mais "
     "comme ou si leur y dont aux été cette nous vous tout je être"},
    {"de",
     "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat "
     "dass sie nach wird bei einer um am sind noch wie einem über so zum war haben nur oder aber vor zur bis mehr "
     "durch "
     "man sein wurde ich du wir ihr"},
    {"it",
     "di e il la che in un per è una del non sono con le da si come i dei al nel della più anche ma alla lo gli su se "
     "delle questo ha o ci degli nella dal io essere"},
    {"pl",
     "i w na z że się do nie to jest o za co jak od po ale tak dla przez tym przy już oraz lub są jego tylko może być "
     "ich czy który które która można bardzo także ten"},
    {"vi",
     "và của là có cho không được những một các trong người với để này khi đã ra về như từ cũng đến tại vào hay nhiều "
     "bạn tôi sẽ"},
    {"sw",
     "na ya wa kwa ni katika za la kuwa hii hiyo ambayo kama cha yake pia huu watu wao lakini hivyo mimi yako sana au "
     "vya ili hizo wako zaidi hakuna bila"},
    {"fi",
     "ja on ei että se oli hän mutta ovat kun niin myös tai jos mitä joka kuin vain ole sen olla voi mukaan jonka sekä "
     "tämä minä sinä kanssa nyt jo siitä voit"},
    {"nl",
     "de het een en van in is dat op te voor met zijn niet aan er om ook als dan maar bij nog uit naar worden door "
     "wordt deze over hebben ik je"},
    {"sv",
     "och att det i en som på är av för med till den har inte om ett men de var jag från kan sig när så eller vi du"},
    {"tr", "ve bir bu için ile de da olarak çok daha gibi olan en ne ama veya değil her sonra kadar ben sen"},
    {"id",
     "yang dan di dari untuk dengan ini itu pada tidak dalam adalah akan atau juga ke oleh saya anda bisa sebagai"},
    {"ro", "și de la în pe cu este nu un o să din care pentru mai că au sunt sau ca dar fi prin"},
};

constexpr StopWords kDevanagari[] = {
    {"hi", "है हैं के का की में और से को नहीं यह पर भी हो था थी थे कि एक लिए ने ही तो जो इस कर आप हम वह अपने या करने साथ गया सकते"},
    {"mr",
     "आहे आहेत आणि मध्ये नाही हे हा ही होते करण्यासाठी या आपण तो ती साठी की एक च्या व तर त्या असे होता म्हणून मला आपल्या तुम्ही केले "
     "पण"},
    {"ne", "छ छन् र मा को हो गर्न भएको लागि पनि यो गर्ने तपाईं थियो हुन्छ हरू एक ले गर्छ तथा भने त्यो हामी हाम्रो मेरो छैन सक्छ गरेको"},
};

// Writing systems by the blocks that their letters stand in.
enum Script : uint8_t {
  latin,
  greek,
  cyrillic,
  hebrew,
  arabic,
  devanagari,
  bengali,
  gurmukhi,
  gujarati,
  tamil,
  telugu,
  kannada,
  malayalam,
  thai,
  hangul,
  kana,
  han,
  kScripts
};

struct Block {
  char32_t first, last;
  Script script;
};

constexpr Block kBlocks[] = {
    {0x0041, 0x024F, latin},    {0x0370, 0x03FF, greek},     {0x0400, 0x052F, cyrillic},   {0x0590, 0x05FF, hebrew},
    {0x0600, 0x06FF, arabic},   {0x0750, 0x077F, arabic},    {0x0900, 0x097F, devanagari}, {0x0980, 0x09FF, bengali},
    {0x0A00, 0x0A7F, gurmukhi}, {0x0A80, 0x0AFF, gujarati},  {0x0B80, 0x0BFF, tamil},      {0x0C00, 0x0C7F, telugu},
    {0x0C80, 0x0CFF, kannada},  {0x0D00, 0x0D7F, malayalam}, {0x0E00, 0x0E7F, thai},       {0x1100, 0x11FF, hangul},
    {0x1E00, 0x1EFF, latin},    {0x1F00, 0x1FFF, greek},     {0x3040, 0x30FF, kana},       {0x3130, 0x318F, hangul},
    {0x3400, 0x4DBF, han},      {0x4E00, 0x9FFF, han},       {0xAC00, 0xD7AF, hangul},     {0xFB50, 0xFDFF, arabic},
    {0xFE70, 0xFEFF, arabic},
};

// Of the scripts that one language of the list uses.
constexpr std::pair<Script, std::string_view> kOwners[] = {
    {greek, "el"},  {hebrew, "he"},  {bengali, "bn"},   {gurmukhi, "pa"}, {gujarati, "gu"}, {tamil, "ta"},
    {telugu, "te"}, {kannada, "kn"}, {malayalam, "ml"}, {thai, "th"},     {hangul, "ko"},   {kana, "ja"},
};

constexpr std::pair<std::string_view, std::u32string_view> kCyrillicLetters[] = {
    {"ru", U"ыэёЫЭЁ"}, {"uk", U"іїєґІЇЄҐ"}, {"bg", U"ъЪ"}};
constexpr std::u32string_view kUrduLetters = U"ٹڈڑںےہھ", kPersianLetters = U"پچژگکی", kArabicLetters = U"يكةى";

struct Letters {
  std::array<size_t, kScripts> of_script{};
  std::map<char32_t, size_t> of_cyrillic_or_arabic;

  size_t count(std::u32string_view letters) const {
    size_t sum = 0;
    for (const char32_t letter : letters) {
      const auto found = of_cyrillic_or_arabic.find(letter);
      sum += found == of_cyrillic_or_arabic.end() ? 0 : found->second;
    }
    return sum;
  }
};

Letters count_letters(std::string_view text) {
  Letters letters;
  while (!text.empty()) {
    const Utf8Unit unit = read_utf8(text);
    text.remove_prefix(unit.size);
    if (!is_letter(unit.scalar)) continue;
    const auto* block = std::find_if(std::begin(kBlocks), std::end(kBlocks),
                                     [&](const Block& b) { return unit.scalar >= b.first && unit.scalar <= b.last; });
    if (block == std::end(kBlocks)) continue;
    ++letters.of_script[block->script];
    if (block->script == cyrillic || block->script == arabic) ++letters.of_cyrillic_or_arabic[unit.scalar];
  }
  return letters;
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> out;
  while (!list.empty()) {
    const size_t end = std::min(list.find(' '), list.size());
    if (end > 0) out.push_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return out;
}

using Index = std::map<std::string, std::vector<size_t>, std::less<>>;  // the languages that have a word

template <size_t n>
Index index_of(const StopWords (&lists)[n]) {
  Index index;
  for (size_t i = 0; i < n; ++i) {
    for (const std::string_view word : split(lists[i].words)) index[case_fold(word)].push_back(i);
  }
  return index;
}

template <size_t n>
std::string_view by_stop_words(std::string_view text, const StopWords (&lists)[n], const Index& index) {
  std::array<double, n> score{};
  for (const std::string_view word : words(text)) {
    const auto found = index.find(case_fold(word));
    if (found == index.end()) continue;
    for (const size_t language : found->second) score[language] += 1.0 / static_cast<double>(found->second.size());
  }
  const auto best = std::max_element(score.begin(), score.end());
  return *best > 0 ? lists[best - score.begin()].language : std::string_view();
}

std::string_view cyrillic_language(const Letters& letters) {
  std::string_view best = "ru";
  size_t most = 0;
  for (const auto& [language, own] : kCyrillicLetters) {
    const size_t count = letters.count(own);
    if (count > most) best = language;
    most = std::max(most, count);
  }
  return best;
}

std::string_view arabic_language(const Letters& letters) {
  // Urdu has Persian's letters, too.
  if (letters.count(kUrduLetters) * 33 >= letters.of_script[arabic]) return "ur";
  return letters.count(kPersianLetters) > letters.count(kArabicLetters) ? "fa" : "ar";
}

}  // namespace

std::string_view guess_language(std::string_view text) {
  static const Index latin_words = index_of(kLatin), devanagari_words = index_of(kDevanagari);
  Letters letters = count_letters(text);
  std::array<size_t, kScripts>& of = letters.of_script;
  const bool japanese = of[kana] > 0 && of[kana] * 10 >= of[kana] + of[han];
  if (japanese) of[kana] += std::exchange(of[han], 0);
  const auto most = std::max_element(of.begin(), of.end());
  if (*most == 0) return {};
  switch (const auto script = static_cast<Script>(most - of.begin())) {
    case latin:
      return by_stop_words(text, kLatin, latin_words);
    case devanagari:
      return by_stop_words(text, kDevanagari, devanagari_words);
    case cyrillic:
      return cyrillic_language(letters);
    case arabic:
      return arabic_language(letters);
    case han:
      return "zh";
    default:
      return std::find_if(std::begin(kOwners), std::end(kOwners), [&](const auto& o) { return o.first == script; })
          ->second;
  }
}

bool is_guessed_language(std::string_view code) {
  const auto has = [&](const auto& list, auto language) {
    return std::any_of(std::begin(list), std::end(list), [&](const auto& item) { return item.*language == code; });
  };
  using Owner = std::pair<Script, std::string_view>;
  using Cyrillic = std::pair<std::string_view, std::u32string_view>;
  constexpr std::string_view kOthers[] = {"ar", "fa", "ur", "zh"};
  return has(kLatin, &StopWords::language) || has(kDevanagari, &StopWords::language) || has(kOwners, &Owner::second) ||
         has(kCyrillicLetters, &Cyrillic::first) ||
         std::find(std::begin(kOthers), std::end(kOthers), code) != std::end(kOthers);
}

}  // namespace nibble::text
