// The tokenizer against HF tokenizers: every case of both vocabularies, ids and decoded text.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>

#include "io/json.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"

namespace nibble::text {
namespace {

const Path kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";
const Path kTinyVoiceCases = NIBBLE_SOURCE_DIR "/tests/golden/tiny-voice/tokenizer.jsonl";
const Path kLarge = NIBBLE_SOURCE_DIR "/../shared/goldens/bpe152k";

double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

std::vector<Json> read_cases(const Path& path) {
  auto text = read_file(path);
  EXPECT_TRUE(text.ok()) << text.status().text();
  std::vector<Json> cases;
  for (size_t at = 0, end; text.ok() && at < text->size(); at = end + 1) {
    end = std::min(text->find('\n', at), text->size());
    auto parsed = parse_json(std::string_view(*text).substr(at, end - at), path.string());
    EXPECT_TRUE(parsed.ok()) << parsed.status().text();
    if (parsed.ok()) cases.push_back(std::move(*parsed));
  }
  return cases;
}

// The 152k vocabulary, loaded once; the time goes to the test's output. Nothing where the goldens are not present.
const Tokenizer* large_tokenizer() {
  static const std::optional<Tokenizer> tokenizer = []() -> std::optional<Tokenizer> {
    if (!std::filesystem::exists(kLarge / "tokenizer.json.xz")) return std::nullopt;
    const std::string command = "xz -dc '" + (kLarge / "tokenizer.json.xz").string() + "'";
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
    std::string json;
    std::array<char, 1 << 16> block;
    for (size_t n; pipe && (n = std::fread(block.data(), 1, block.size(), pipe.get())) > 0;)
      json.append(block.data(), n);
    const double start = cpu_seconds();
    auto loaded = Tokenizer::parse(json, "");
    const double seconds = cpu_seconds() - start;
    EXPECT_TRUE(loaded.ok()) << loaded.status().text();
    std::cout << "loaded " << json.size() << " bytes in " << seconds << " s\n";
    return loaded.ok() ? std::optional(*loaded) : std::nullopt;
  }();
  return tokenizer ? &*tokenizer : nullptr;
}

#define REQUIRE_LARGE(tokenizer)                  \
  const Tokenizer* tokenizer = large_tokenizer(); \
  if (tokenizer == nullptr) GTEST_SKIP() << "shared/goldens/bpe152k is not here"

void expect_cases(const Tokenizer& tokenizer, const std::vector<Json>& cases) {
  for (const Json& c : cases) {
    const auto text = c["text"].get<std::string>();
    std::vector<int32_t> ids;
    ASSERT_TRUE(tokenizer.encode(text, AddedTokens::parse, ids).ok());
    EXPECT_EQ(ids, c["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer.decode(ids), c["decoded"].get<std::string>()) << text;

    StreamDecoder stream(tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.feed(id);
    EXPECT_EQ(streamed + stream.finish(), c["decoded"].get<std::string>()) << text;
  }
}

TEST(TokenizerGolden, TinyVoice) {
  const auto tokenizer = Tokenizer::load(kTinyVoice);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().text();
  const auto cases = read_cases(kTinyVoiceCases);
  EXPECT_EQ(cases.size(), 223u);
  expect_cases(*tokenizer, cases);
}

TEST(TokenizerGolden, Vocabulary152k) {
  REQUIRE_LARGE(tokenizer);
  const auto cases = read_cases(kLarge / "cases.jsonl");
  EXPECT_EQ(cases.size(), 928u);
  expect_cases(*tokenizer, cases);
}

// Conversations as the bundled model's template writes them, so that the clock runs over chat text.
TEST(TokenizerGolden, ChatTextSurvivesAndIsTimed) {
  REQUIRE_LARGE(tokenizer);
  std::string text;
  const auto chats = read_cases(NIBBLE_SOURCE_DIR "/tests/golden/tiny-voice/calibration_texts.jsonl");
  for (int repeat = 0; repeat < 50; ++repeat) {
    for (const Json& chat : chats) {
      for (const Json& message : chat["messages"]) {
        text += "<|im_start|>" + message["role"].get<std::string>() + "\n" + message["content"].get<std::string>();
        text += "<|im_end|>\n";
      }
    }
  }
  std::vector<int32_t> ids;
  const double start = cpu_seconds();
  ASSERT_TRUE(tokenizer->encode(text, AddedTokens::parse, ids).ok());
  const double seconds = cpu_seconds() - start;
  std::cout << "encoded " << text.size() << " bytes at " << text.size() / seconds / 1e6 << " MB/s, "
            << static_cast<double>(text.size()) / ids.size() << " bytes per token\n";
  EXPECT_EQ(tokenizer->decode(ids), text);
}

}  // namespace
}  // namespace nibble::text
