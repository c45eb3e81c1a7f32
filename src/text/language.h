// Which language a text is written in: a guess good enough to say whether a reply obeyed "answer in Telugu".
//
// The writing system that most letters belong to decides where one language of the list uses it. Where several do:
//   Latin, Devanagari   by share of stop words; a word that n languages have counts 1/n for each of them
//   Cyrillic, Arabic    by letters that only one of them writes (і ї є ґ Ukrainian, ы э ё Russian, ъ Bulgarian; ٹ ڈ ڑ ں
//                       ے ہ ھ Urdu, پ چ ژ گ ک ی Persian, ي ك ة ى Arabic)
//   Han                 Japanese where at least a tenth of the characters is kana, else Chinese
// Limits: a language outside the list is taken for its neighbour (Serbian for a Cyrillic one, Danish for Swedish), a
// reply of a few words may hold no stop word, and a text in two languages is the one with more letters.
#pragma once

#include <string_view>

namespace nibble::text {

/// ISO 639-1 code of the language: ar bg bn de el en es fa fi fr gu he hi id it ja kn ko ml mr ne nl pa pl pt ro ru sv
/// sw ta te th tr uk ur vi zh. Empty where nothing tells: no letters, or none of the stop words. Pure, any bytes.
std::string_view guess_language(std::string_view text);

/// Whether the code is one of those.
bool is_guessed_language(std::string_view code);

}  // namespace nibble::text
