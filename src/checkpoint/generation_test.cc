#include "checkpoint/generation.h"

#include <gtest/gtest.h>

#include "checkpoint/test_folder.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::write_plain;

model::Config with_eos(std::vector<int32_t> ids) {
  model::Config config = *model::builtin_config("0.8b");
  config.vocab = 1000;
  config.eos_ids = std::move(ids);
  return config;
}

std::vector<int32_t> stops(const Path& folder, const model::Config& config) {
  Result<Generation> g = read_generation(folder, config);
  EXPECT_TRUE(g.ok()) << g.status().text();
  return g->stop_ids;
}

TEST(Generation, StopSetIsTheUnionOfAllSources) {
  const TemporaryFolder folder;
  const model::Config config = with_eos({5});
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({5}));
  write_plain(folder.path() / "generation_config.json", R"({"eos_token_id":[6,5],"pad_token_id":null})");
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({5, 6}));
  write_plain(folder.path() / "generation_config.json", R"({"eos_token_id":6})");
  write_plain(folder.path() / "tokenizer_config.json", R"({"eos_token":"<end>"})");
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({5, 6}));
  write_plain(
      folder.path() / "tokenizer.json",
      R"({"version":"1.0","pre":{"id":1,"content":"<end>"},"added_tokens":[{"id":8,"content":"<x>","special":true},)"
      R"({"content":"<end>","id":7,"x":{"content":"<x>"}}],"model":{"vocab":{"a":1},"broken)");
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({5, 6, 7}));
  write_plain(folder.path() / "tokenizer_config.json",
              R"({"eos_token":{"content":"<end>"},"added_tokens_decoder":{"x":{},"9":{"content":"<end>"}}})");
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({5, 6, 9}));
}

TEST(Generation, TheReleasedVocabularyAlwaysStopsAtBothEnds) {
  const TemporaryFolder folder;
  const model::Config config = *model::builtin_config("9b");
  EXPECT_EQ(stops(folder.path(), config), std::vector<int32_t>({248044, 248046}));
}

TEST(Generation, TheBundledModelStopsAtItsTwo) {
  model::Config config = with_eos({1556});
  EXPECT_EQ(stops(NIBBLE_SOURCE_DIR "/models/tiny-voice", config), std::vector<int32_t>({1556, 1554}));
}

TEST(Generation, ReadsSampling) {
  const TemporaryFolder folder;
  write_plain(folder.path() / "generation_config.json",
              R"({"do_sample":true,"temperature":0.6,"top_p":0.95,"top_k":20,"min_p":null})");
  Result<Generation> g = read_generation(folder.path(), with_eos({}));
  ASSERT_TRUE(g.ok());
  EXPECT_EQ(g->do_sample, true);
  EXPECT_EQ(g->temperature, 0.6f);
  EXPECT_EQ(g->top_p, 0.95f);
  EXPECT_EQ(g->top_k, 20);
  EXPECT_FALSE(g->min_p);
  EXPECT_FALSE(g->repetition_penalty);
  for (const char* bad : {R"({"temperature":-1})", R"({"top_p":1.5})", R"({"eos_token_id":"x"})",
                          R"({"eos_token_id":[-1]})", R"([])", R"({"top_k":"many"})", "{"}) {
    write_plain(folder.path() / "generation_config.json", bad);
    EXPECT_EQ(read_generation(folder.path(), with_eos({})).status().code(), Code::corrupt) << bad;
  }
}

}  // namespace
}  // namespace nibble::checkpoint
