#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "base/rng.h"
#include "text/nfc.h"
#include "text/stream_decoder.h"
#include "text/tokenizer_fixture.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

using Ids = std::vector<int32_t>;

const Tokenizer& tiny_voice() {
  static const Tokenizer tokenizer = Tokenizer::load(NIBBLE_SOURCE_DIR "/models/tiny-voice").value();
  return tokenizer;
}

// Text and half text: ASCII, marks, blanks, control tokens and stray bytes.
std::string random_bytes(Rng& rng) {
  static const std::vector<std::string> kParts = {"<|im_start|>", "<|im_end|>", "<think>", "<|im_", "e\u0301", "\u0316",
                                                  "\u2126",       "नमस्ते",       "\u4F60",  "\r\n",  "   ",     "don't",
                                                  "\xF0\x9F",     "\xFF",       "\xC3",    "😀",     "\u3000",  "12"};
  std::string bytes;
  for (uint32_t n = rng.below(12); n > 0; --n) {
    const uint32_t part = rng.below(2 * static_cast<uint32_t>(kParts.size()));
    bytes += part < kParts.size() ? kParts[part] : std::string(1, static_cast<char>(rng.below(256)));
  }
  return bytes;
}

TEST(Tokenizer, Fixture) {
  const Tokenizer tokenizer = must_parse(fixture_json());
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
  EXPECT_EQ(encode(tokenizer, "hello hello"), (Ids{259, 260}));
  EXPECT_EQ(encode(tokenizer, "hell"), Ids{258});
  EXPECT_EQ(tokenizer.id_limit(), 303);
  EXPECT_FALSE(tokenizer.eos());
  Ids appended = {1};
  ASSERT_TRUE(tokenizer.encode("ll", AddedTokens::parse, appended).ok());
  EXPECT_EQ(appended, (Ids{1, 256}));
}

TEST(Tokenizer, AddedTokensAreLiteralAndLongestFirst) {
  const Tokenizer tokenizer = must_parse(fixture_json());
  EXPECT_EQ(encode(tokenizer, "<|end|>"), Ids{300});
  EXPECT_EQ(encode(tokenizer, "<|end|><|end|><|end|>"), (Ids{302, 300}));
  EXPECT_EQ(encode(tokenizer, "<<think>hello<|end|"), (Ids{'<', 301, 259, '<', '|', 'e', 'n', 'd', '|'}));
  // What a token parts is normalized and split apart: no accent crosses it.
  EXPECT_EQ(encode(tokenizer, "e<think>\u0301"), (Ids{'e', 301, 0xCC, 0x81}));
  EXPECT_EQ(encode(tokenizer, "e\u0301"), (Ids{0xC3, 0xA9}));

  EXPECT_EQ(tokenizer.added_token("<think>"), 301);
  EXPECT_EQ(tokenizer.added_token("<thin"), std::nullopt);
  EXPECT_EQ(tokenizer.added_token(""), std::nullopt);
  EXPECT_EQ(tokenizer.added_token("hello"), std::nullopt);
}

TEST(Tokenizer, IgnoredAddedTokensArePlainText) {
  const Tokenizer tokenizer = must_parse(fixture_json());
  EXPECT_EQ(encode(tokenizer, "<|end|>", AddedTokens::ignore), (Ids{'<', '|', 'e', 'n', 'd', '|', '>'}));
  Rng rng(1);
  for (int i = 0; i < 2000; ++i) {
    for (const int32_t id : encode(tiny_voice(), random_bytes(rng), AddedTokens::ignore)) {
      ASSERT_FALSE(tiny_voice().is_added(id));
    }
  }
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = must_parse(fixture_json());
  EXPECT_EQ(tokenizer.bytes_of(260), " hello");
  EXPECT_EQ(tokenizer.bytes_of(0xFF), "\xFF");
  EXPECT_EQ(tokenizer.bytes_of(301), "<think>");
  EXPECT_TRUE(tokenizer.is_added(301) && !tokenizer.is_special(301));
  EXPECT_TRUE(tokenizer.is_added(300) && tokenizer.is_special(300));
  EXPECT_FALSE(tokenizer.is_added(260));
  for (const int32_t unknown : {-1, 261, 299, 303, INT32_MAX, INT32_MIN}) {
    EXPECT_FALSE(tokenizer.known(unknown) || tokenizer.is_added(unknown) || tokenizer.is_special(unknown));
    EXPECT_EQ(tokenizer.bytes_of(unknown), "");
  }
}

TEST(Tokenizer, DecodesToValidText) {
  const Tokenizer tokenizer = must_parse(fixture_json());
  EXPECT_EQ(tokenizer.decode(Ids{259, 300, 301, -5, 280, 260}), "hello<|end|><think> hello");
  EXPECT_EQ(tokenizer.decode(Ids{259, 300, 301, 260}, true), "hello<think> hello");
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 0x82, 0xAC, 0xE2, 0x82}), "€\uFFFD");
  // A skipped token does not part the bytes around it.
  EXPECT_EQ(tokenizer.decode(Ids{0xC3, 300, 0xA9}, true), "é");
  EXPECT_EQ(tokenizer.decode(Ids{0xC3, 300, 0xA9}), "\uFFFD<|end|>\uFFFD");
}

TEST(Tokenizer, MergesTheConfig) {
  Json tokenizer = fixture_json();
  const std::string config = R"({"eos_token": {"content": "<|late|>", "special": true}, "added_tokens_decoder": {
    "301": {"content": "<think>", "special": true},
    "310": {"content": "<|late|>", "special": true}, "311": {"content": "<tool>"}}})";
  const Tokenizer merged = must_parse(tokenizer, config);
  EXPECT_EQ(merged.eos(), 310);
  EXPECT_EQ(merged.id_limit(), 312);
  EXPECT_TRUE(merged.is_special(301));
  EXPECT_FALSE(merged.is_special(311));
  EXPECT_EQ(encode(merged, "<tool><|late|>"), (Ids{311, 310}));
  EXPECT_EQ(must_parse(tokenizer, R"({"eos_token": "<|end|>"})").eos(), 300);
  EXPECT_EQ(must_parse(tokenizer, R"({"eos_token": null})").eos(), std::nullopt);
}

TEST(Tokenizer, HonoursTheSettingsOfTheFile) {
  Json json = fixture_json();
  json["model"]["vocab"]["abc"] = 261;  // no merge leads there
  EXPECT_EQ(encode(must_parse(json), "abc"), (Ids{'a', 'b', 'c'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(must_parse(json), "abc abc hello"), (Ids{261, ' ', 'a', 'b', 'c', 260}));

  json = fixture_json();
  json["normalizer"] = nullptr;
  EXPECT_EQ(encode(must_parse(json), "e\u0301"), (Ids{'e', 0xCC, 0x81}));

  json = fixture_json();
  for (Json& merge : json["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  EXPECT_EQ(encode(must_parse(json), "hello hello"), (Ids{259, 260}));

  json = fixture_json();
  Json& splits = json["pre_tokenizer"]["pretokenizers"];
  const Json first = {{"type", "Split"}, {"pattern", {{"Regex", "ll"}}}, {"behavior", "Isolated"}};
  splits.insert(splits.begin(), first);
  EXPECT_EQ(encode(must_parse(json), "hello"), (Ids{257, 256, 'o'}));

  json = fixture_json();
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  EXPECT_EQ(encode(must_parse(json), "hello hello"), (Ids{259, 260}));
}

TEST(Tokenizer, AVocabularyMayListItsAddedTokens) {
  Json json = fixture_json();
  json["model"]["vocab"]["<think>"] = 301;
  json["model"]["ignore_merges"] = true;
  const Tokenizer tokenizer = must_parse(json);
  EXPECT_EQ(encode(tokenizer, "<think>"), Ids{301});
  for (const int32_t id : encode(tokenizer, "<think>", AddedTokens::ignore)) EXPECT_NE(id, 301);
}

TEST(Tokenizer, AnyBytesComeBackAsTheirText) {
  Rng rng(2);
  for (int i = 0; i < 5000; ++i) {
    const std::string bytes = random_bytes(rng), text = nfc(sanitize_utf8(bytes));
    ASSERT_EQ(tiny_voice().decode(encode(tiny_voice(), bytes, AddedTokens::ignore)), text);
    // Normalization stops at added tokens, so there the whole need not be in NFC.
    ASSERT_EQ(nfc(tiny_voice().decode(encode(tiny_voice(), bytes))), text);
    if (text == bytes) {
      ASSERT_EQ(tiny_voice().decode(encode(tiny_voice(), text)), text);
    }
  }
}

TEST(Tokenizer, StreamsWhatItDecodes) {
  Rng rng(3);
  const Tokenizer& tokenizer = tiny_voice();
  StreamDecoder with(tokenizer, false), without(tokenizer);
  for (int i = 0; i < 5000; ++i) {
    Ids ids(rng.below(20));
    // Half of them single bytes, which make and break characters; some unknown.
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(rng.below(rng.below(2) == 0 ? 256 : static_cast<uint32_t>(tokenizer.id_limit()) + 9));
    }
    for (StreamDecoder* stream : {&with, &without}) {
      std::string text;
      for (const int32_t id : ids) {
        const std::string piece = stream->feed(id);
        ASSERT_TRUE(valid_utf8(piece));
        text += piece;
      }
      ASSERT_EQ(text + stream->finish(), tokenizer.decode(ids, stream == &without));
      ASSERT_EQ(stream->finish(), "");
    }
  }
}

TEST(Tokenizer, ThreadsShareIt) {
  const std::string text = "I'll be there at 10 😀 <|im_end|>\n नमस्ते";
  const Ids expected = encode(tiny_voice(), text);
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (bool& result : same) {
    threads.emplace_back([&] {
      result = true;
      for (int i = 0; i < 500; ++i) result = result && encode(tiny_voice(), text) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const bool result : same) EXPECT_TRUE(result);
}

}  // namespace
}  // namespace nibble::text
