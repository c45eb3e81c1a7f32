// tokenizer.json from strangers: every broken or unsupported piece has an answer that names it.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/tokenizer_fixture.h"
#include "text/tokenizer_json.h"

namespace nibble::text {
namespace {

struct Case {
  std::function<void(Json&)> bend;
  Code code;
  const char* says;
};

void expect_refused(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    Json json = fixture_json();
    c.bend(json);
    const Status status = Tokenizer::parse(json.dump(), "").status();
    EXPECT_EQ(status.code(), c.code) << c.says;
    EXPECT_NE(status.message().find(c.says), std::string::npos) << status.message() << "\nmisses " << c.says;
  }
}

Json& splits(Json& j) {
  return j["pre_tokenizer"]["pretokenizers"];
}

TEST(TokenizerLoad, RefusesWhatItDoesNotDo) {
  const auto model = [](const char* key, const Json& value) { return [=](Json& j) { j["model"][key] = value; }; };
  expect_refused({
      {[](Json& j) { j["normalizer"]["type"] = "NFKC"; }, Code::unsupported,
       R"(tokenizer.json: normalizer: expected NFC or none, got {"type":"NFKC"})"},
      {[](Json& j) {
         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
       },
       Code::unsupported, "normalizer"},
      {[](Json& j) { j["pre_tokenizer"] = nullptr; }, Code::unsupported, "pre_tokenizer: expected"},
      {[](Json& j) { splits(j) = Json::array(); }, Code::unsupported, "pre_tokenizer: expected"},
      {[](Json& j) { splits(j).erase(1); }, Code::unsupported, "pretokenizers[0]: expected ByteLevel"},
      {[](Json& j) { splits(j)[0]["type"] = "Whitespace"; }, Code::unsupported, "pretokenizers[0]: expected Split"},
      {[](Json& j) { splits(j)[0]["behavior"] = "Removed"; }, Code::unsupported, "behavior: expected \"Isolated\""},
      {[](Json& j) { splits(j)[0]["invert"] = true; }, Code::unsupported, "invert: expected none, got true"},
      {[](Json& j) {
         splits(j)[0]["pattern"] = {{"String", " "}};
       },
       Code::unsupported, "pattern: expected a Regex"},
      {[](Json& j) { splits(j)[0]["pattern"]["Regex"] = "\\w+"; }, Code::unsupported, "the escape \\w"},
      {[](Json& j) { splits(j)[1]["add_prefix_space"] = true; }, Code::unsupported, "add_prefix_space: expected false"},
      {[](Json& j) { splits(j)[1].erase("add_prefix_space"); }, Code::unsupported, "add_prefix_space: expected false"},
      {[](Json& j) { splits(j) = Json(Json::array_t(17, splits(j)[0])); }, Code::unsupported, "at most 16"},
      {[](Json& j) { j["decoder"] = nullptr; }, Code::unsupported, "decoder: expected ByteLevel, got null"},
      {[](Json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"}, {"special_tokens", {{"<s>", 1}}}};
       },
       Code::unsupported, "post_processor: expected none that adds tokens"},
      {model("type", "Unigram"), Code::unsupported, R"(model.type: expected "BPE", got "Unigram")"},
      {model("dropout", 0.1), Code::unsupported, "model.dropout: expected none, got 0.1"},
      {model("unk_token", "<unk>"), Code::unsupported, "model.unk_token"},
      {model("continuing_subword_prefix", "##"), Code::unsupported, "model.continuing_subword_prefix"},
      {model("end_of_word_suffix", "</w>"), Code::unsupported, "model.end_of_word_suffix"},
      {model("byte_fallback", true), Code::unsupported, "model.byte_fallback: expected none, got true"},
      {[](Json& j) { j["model"]["vocab"].erase("A"); }, Code::unsupported, "got none for 0x41"},
      {[](Json& j) { j["added_tokens"][1]["lstrip"] = true; }, Code::unsupported,
       "tokenizer.json: added_tokens[1].lstrip: expected false, got true"},
      {[](Json& j) { j["added_tokens"][1]["rstrip"] = true; }, Code::unsupported, "rstrip"},
      {[](Json& j) { j["added_tokens"][1]["single_word"] = true; }, Code::unsupported, "single_word"},
      {[](Json& j) { j["added_tokens"][1]["normalized"] = true; }, Code::unsupported, "normalized"},
  });
}

TEST(TokenizerLoad, RefusesWhatIsBroken) {
  const auto vocab = [](const char* key, const Json& value) {
    return [=](Json& j) { j["model"]["vocab"][key] = value; };
  };
  const auto merges = [](const Json& value) { return [=](Json& j) { j["model"]["merges"].push_back(value); }; };
  const auto added = [](const char* key, const Json& value) {
    return [=](Json& j) { j["added_tokens"][2][key] = value; };
  };
  expect_refused({
      {[](Json& j) { j = Json::array(); }, Code::corrupt, "tokenizer.json: expected an object, got []"},
      {[](Json& j) { j["model"] = 7; }, Code::corrupt, "model: expected an object, got 7"},
      {[](Json& j) { j["model"].erase("vocab"); }, Code::unsupported, "got none for 0x00"},
      {[](Json& j) { j["model"]["vocab"] = Json::array(); }, Code::unsupported, "got none for 0x00"},
      {vocab("a", -1), Code::corrupt, R"(model.vocab: -1 for the id of "a")"},
      {vocab("a", 1.5), Code::corrupt, "model.vocab: 1.5"},
      {vocab("a", "7"), Code::corrupt, "model.vocab: a string"},
      {vocab("a", nullptr), Code::corrupt, "model.vocab: null"},
      {vocab("a", true), Code::corrupt, "model.vocab: a boolean"},
      {vocab("a", Json::array({1})), Code::corrupt, "model.vocab: an array"},
      {vocab("a", Json::object()), Code::corrupt, "model.vocab: an object"},
      {vocab("a", 1u << 21), Code::corrupt, "model.vocab: 2097152"},
      {vocab("a", UINT64_MAX), Code::corrupt, "model.vocab: 18446744073709551615"},
      {vocab("", 270), Code::corrupt, "a token of 0 bytes"},
      {vocab(std::string(4097, 'x').c_str(), 270), Code::corrupt, "a token of 4097 bytes"},
      {vocab("abc", 65), Code::corrupt, R"(expected each id once, got 65 for "abc" too)"},
      {merges("l o"), Code::corrupt, R"(model.merges[5]: expected tokens of the vocabulary, got "lo")"},
      {merges({"zz", "l"}), Code::corrupt, R"(got "zz")"},
      {merges({"l", "zz"}), Code::corrupt, R"(got "zz")"},
      {merges({"l", ""}), Code::corrupt, R"(got "")"},
      {merges({"l", "l"}), Code::corrupt, R"(expected each pair once, got "l" "l" again)"},
      {merges("ll"), Code::corrupt, R"(model.merges: "ll" where "left right" belongs)"},
      {merges("l l l"), Code::corrupt, "where \"left right\" belongs"},
      {merges(Json::array({"l"})), Code::corrupt, "a merge of 1"},
      {merges({"l", "l", "l"}), Code::corrupt, "a merge of more than two"},
      {merges(Json::array({"l", Json::array()})), Code::corrupt, "model.merges: an array"},
      {merges({{"l", "l"}, {"h", 1}}), Code::corrupt, "model.merges: an"},
      {merges(7), Code::corrupt, "model.merges: a number"},
      {merges(nullptr), Code::corrupt, "model.merges: null"},
      {[](Json& j) { j["added_tokens"] = "x"; }, Code::corrupt, "added_tokens: expected an array"},
      {[](Json& j) { j["added_tokens"][0] = 1; }, Code::corrupt, "added_tokens[0].id: expected an id"},
      {added("id", -3), Code::corrupt, "added_tokens[2].id: expected an id of 0..2097151, got -3"},
      {added("id", 1u << 21), Code::corrupt, "added_tokens[2].id"},
      {added("id", 300), Code::corrupt, "an id other than 300"},
      {added("id", 65), Code::corrupt, "two meanings for 65"},
      {added("content", ""), Code::corrupt, "added_tokens[2].content"},
      {added("content", 5), Code::corrupt, "added_tokens[2].content: expected a string"},
      {added("content", "<think>"), Code::corrupt, "a content not yet taken"},
      {added("content", "hello"), Code::corrupt, R"(two meanings for 302 or "hello")"},
      {added("special", "yes"), Code::corrupt, "added_tokens[2].special: expected true or false"},
      {[](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }, Code::corrupt,
       "pattern: expected a regular expression"},
  });
}

TEST(TokenizerLoad, RefusesBrokenBytes) {
  const std::string json = fixture_json().dump();
  for (size_t cut = 0; cut < json.size(); cut += 97) {
    EXPECT_EQ(Tokenizer::parse(json.substr(0, cut), "").status().code(), Code::corrupt) << cut;
  }
  const auto with = [&](const std::string& before, const std::string& after) {
    std::string bent = json;
    const size_t at = bent.find(before);
    EXPECT_NE(at, std::string::npos);
    return Tokenizer::parse(bent.replace(at, before.size(), after), "").status().message();
  };
  EXPECT_NE(with(R"("B":66)", R"("B":66,"B":66)").find(R"("B" twice)"), std::string::npos);
  EXPECT_NE(with(R"("normalizer")", R"("decoder")").find("duplicate key \"decoder\""), std::string::npos);
  EXPECT_NE(with(R"("vocab":{)", R"("vocab":{"k":1},"vocab":{)").find("duplicate key \"vocab\""), std::string::npos);
  EXPECT_NE(with(R"("version":"1.0")", R"("version":)" + std::string(40, '[') + std::string(40, ']')).find("levels"),
            std::string::npos);
}

TEST(TokenizerLoad, RefusesABrokenConfig) {
  const std::string tokenizer = fixture_json().dump();
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"{", "tokenizer_config.json: expected valid JSON"},
      {"[]", "tokenizer_config.json: expected an object"},
      {R"({"eos_token": 5})", "tokenizer_config.json: eos_token: expected a string, got 5"},
      {R"({"eos_token": "<nobody>"})", R"(eos_token: expected a token of the vocabulary, got "<nobody>")"},
      {R"({"added_tokens_decoder": []})", "added_tokens_decoder: expected an object"},
      {R"({"added_tokens_decoder": {"x": {}}})", R"(expected ids of 0..2097151 as keys, got "x")"},
      {R"({"added_tokens_decoder": {"-1": {}}})", R"(got "-1")"},
      {R"({"added_tokens_decoder": {"99999999999": {}}})", R"(got "99999999999")"},
      {R"({"added_tokens_decoder": {"301": {"content": "<other>"}}})", "an id other than 301"},
      {R"({"added_tokens_decoder": {"400": {"content": "<think>"}}})", "a content not yet taken"},
      {R"({"added_tokens_decoder": {"400": {"content": "<x>", "lstrip": true}}})",
       "added_tokens_decoder.400.lstrip: expected false"},
      {R"({"added_tokens_decoder": {"400": 7}})", "added_tokens_decoder.400.content: expected a string"},
  };
  for (const auto& [config, says] : cases) {
    const Status status = Tokenizer::parse(tokenizer, config).status();
    EXPECT_FALSE(status.ok()) << says;
    EXPECT_NE(status.message().find(says), std::string::npos) << status.message() << "\nmisses " << says;
  }
}

TEST(TokenizerLoad, FoldersAndLimits) {
  EXPECT_EQ(Tokenizer::load("/no/such/folder").status().code(), Code::not_found);
  std::string many = R"({"model": {"vocab": {)";
  for (size_t i = 0; i <= kMaxTokens; ++i) many += "\"a\":1,";
  EXPECT_NE(read_tokenizer_json(many).status().message().find("more than 1000000 tokens"), std::string::npos);
}

// Bytes changed, doubled, dropped or swapped for JSON's own: anything may come out but a crash, and what loads works.
TEST(TokenizerLoad, SurvivesMutation) {
  static constexpr std::string_view kBytes = "{}[]\",:0129-.eE\\ntfu \x80\xFF";
  const std::string original = fixture_json().dump();
  // Most of the document is the table of bytes; half of the changes go to the rest of it.
  const size_t table = original.find("\"vocab\""), table_end = original.find("\"merges\"");
  Rng rng(13);
  int loaded = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string json = original;
    for (uint32_t n = 1 + rng.below(3); n > 0; --n) {
      size_t at = rng.below(static_cast<uint32_t>(json.size()));
      if (rng.below(2) == 0 && at >= table && at < table_end) at %= table;
      const char byte = kBytes[rng.below(static_cast<uint32_t>(kBytes.size()))];
      switch (rng.below(5)) {
        case 0:
          json[at] = byte;
          break;
        case 1:
          json.insert(at, 1, byte);
          break;
        case 2:
          json.erase(at, 1 + rng.below(20));
          break;
        case 3:
          json.insert(at, json.substr(at, rng.below(60)));
          break;
        default:
          json[at] = static_cast<char>(json[at] ^ (1u << rng.below(8)));
      }
    }
    const auto tokenizer = Tokenizer::parse(json, "");
    if (!tokenizer.ok()) continue;
    ++loaded;
    std::vector<int32_t> ids;
    if (!tokenizer->encode("hello <think>e\u0301 99\xFF\n  x<|end|>", AddedTokens::parse, ids).ok()) continue;
    ASSERT_FALSE(tokenizer->decode(ids).empty());
  }
  EXPECT_GT(loaded, 20);
}

}  // namespace
}  // namespace nibble::text
