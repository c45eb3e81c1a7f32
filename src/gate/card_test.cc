#include "gate/card.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>

#include "tests/support/temporary_folder.h"
#include "train/metrics.h"

namespace nibble::gate {
namespace {

constexpr const char* kReport = R"({"schema": 1,
  "run": {"model": "NAME", "machine": "a machine", "nibble": "0.1.0", "memory_bytes": 512000000, "params": {"temperature": 0}},
  "gates": [{"id": "factual", "metric": "rate", "value": VALUE, "op": ">=", "threshold": 1, "verdict": "pass"},
            {"id": "ttft", "metric": "p95", "value": 12.5, "op": "<=", "threshold": 500, "verdict": "not_judged"}],
  "overall": {"n": 400, "rate": VALUE}, "conversations": [{"id": "a"}],
  "latency": {"ttfat_ms": {"p50": 41.25, "p95": 77.5}, "by_turn": [{"p50": 99.25}],
              "warm_ttfat_ms": {"n": 0, "p50": 0}, "growth": 0, "decode_tok_s": {"p50": 35.75}}})";

std::string report(const std::string& name, const std::string& value) {
  std::string text = std::regex_replace(kReport, std::regex("NAME"), name);
  return std::regex_replace(text, std::regex("VALUE"), value);
}

class CardTest : public ::testing::Test {
 protected:
  Path folder(const std::string& name) {
    std::filesystem::create_directory(folder_ / name);
    return folder_ / name;
  }
  test::TemporaryFolder folder_;
};

// Every value of the card stands where the card says, and no number of its tables comes from elsewhere.
TEST_F(CardTest, EveryNumberTracesToAField) {
  const Path before = folder("before"), after = folder("after"), healed = folder("healed");
  folder_.write("before/report.json", report("base-nine", "0.91"));
  folder_.write("after/report.json", report("rounded", "0.625"));
  folder_.write("after/config.json", R"({"model_type": "qwen3_5", "text_config": {"num_hidden_layers": 3,
      "hidden_size": 256, "intermediate_size": 768, "vocab_size": 2048, "num_attention_heads": 12, "head_dim": 64,
      "linear_num_key_heads": 11, "layer_types": ["linear_attention", "linear_attention", "full_attention"]}})");
  folder_.write(
      "after/quantize.json",
      R"({"parameters": 8413208, "exclude": ["lm_head"], "calibration_hash": "77ab", "recipe": "mse", "layout": "modelopt", "algo": "W4A16_NVFP4", "effective_bits": 4.5,
                    "effective_bits_with_head": 5.25, "bytes_before": 16826416, "bytes_after": 6275320,
                    "relative_error": 0.0066065, "calibration_tokens": 0})");
  {
    auto log = train::MetricsLog::open(healed, {{"mode", "qad"},
                                                {"lr", 1e-5},
                                                {"conversations", 430},
                                                {"epochs", 3},
                                                {"max_length", 2048},
                                                {"machine", "a cluster"}});
    ASSERT_TRUE(log.ok()) << log.status().text();
    ASSERT_TRUE(log->add(train::StepRecord{.step = 1, .loss = 1.588, .memory_bytes = 31'000'000, .seconds = 900}).ok());
    ASSERT_TRUE(log->add(train::StepRecord{.step = 162, .loss = 0.415, .memory_bytes = 29, .seconds = 1800}).ok());
  }
  const auto card = make_card({before, after, healed}, {.title = "Annie"});
  ASSERT_TRUE(card.ok()) << card.status().text();
  for (const char* text :
       {"| gate | base-nine | rounded | threshold |",
        "| factual | 91.0 % | 62.5 % | >= 100.0 % |",
        "| ttft | not measured | not measured | <= 500 |",
        "recipe mse",
        "4.5 bits a weight",
        "mode qad, 430 conversations",
        "loss 1.588 at the first step, 0.415 at the last of 162",
        "layers 3: 2 linear_attention, 1 full_attention",
        "attention heads 12, of keys and values not measured",
        "parameters 8413208",
        "tokens of the set 77ab",
        "left as they were: [\"lm_head\"]",
        "sequences of at most 2048 tokens",
        "on a cluster",
        "hours of steps 0.75, memory at most 31.0 MB",
        "| rounded | 41.25 | 77.5 | 99.25 | not measured | not measured | 35.75 | 512.0 MB | a machine |",
        "modelopt_fp4",
        "rounded was served by another server",
        "title = {Annie}",
        "## Fidelity to BF16\n\nnot measured",
        "## Data\n\nnot measured"}) {
    EXPECT_NE(card->markdown.find(text), std::string::npos) << text << "\n" << card->markdown;
  }
  for (const CardValue& value : card->values) {
    if (value.file.ends_with("metrics.db")) continue;
    const auto json = parse_json(read_file(value.file).value(), value.file);
    ASSERT_TRUE(json.ok());
    EXPECT_TRUE(json->contains(Json::json_pointer(value.pointer))) << value.file << value.pointer;
  }
  std::multiset<std::string> known;
  const std::regex digits(R"([0-9]+(?:\.[0-9]+)?)");
  const auto numbers = [&](const std::string& text, const auto& each) {
    for (std::sregex_iterator at(text.begin(), text.end(), digits), end; at != end; ++at) each(at->str());
  };
  for (const CardValue& value : card->values) numbers(value.text, [&](const std::string& n) { known.insert(n); });
  // The card's own words hold these: the headings, the tags of its front matter and "p50", "p95", "20 turns".
  for (const char* own : {"4", "3.5", "50", "95", "20", "16"}) known.insert(own);
  numbers(card->markdown, [&](const std::string& n) { EXPECT_TRUE(known.contains(n)) << n; });
}

TEST_F(CardTest, TellsTheFiguresOfAServer) {
  const Path run = folder("speed");
  const Path file =
      folder_.write("speed/bench.json",
                    R"({"run": {"model": "annie", "machine": "a machine"}, "infra": {"requests": 9}, "records": [1, 2],
          "figures": [{"id": "ttfat_warm_512", "what": "first token", "unit": "ms", "n": 30, "value": 41.25,
                       "ci": [40.5, 43], "p95": 77},
                      {"id": "tok_s_4", "what": "all replies", "unit": "tok/s", "n": 8, "value": 120, "ci": null}]})");
  const auto card = make_card({run}, {});
  ASSERT_TRUE(card.ok()) << card.status().text();
  for (const char* text :
       {"annie as a client sees it, asked from a machine:", "| first token | 41.25 | ms | 40.5 to 43 | 77 | 30 |",
        "| all replies | 120 | tok/s |  |  | 8 |"}) {
    EXPECT_NE(card->markdown.find(text), std::string::npos) << text << "\n" << card->markdown;
  }
  EXPECT_TRUE(std::any_of(card->values.begin(), card->values.end(), [&](const CardValue& value) {
    return value.file == file.string() && value.pointer == "/figures/0/ci/1" && value.text == "43";
  }));
  // Figures of the wrong shape are not measured, or named.
  for (const char* figures : {"[3]", "[{}]", R"([{"value": null, "ci": 3}])"}) {
    const Path odd = folder_.write("odd.json", std::string(R"({"infra": {}, "figures": )") + figures + "}");
    EXPECT_TRUE(make_card({odd}, {}).ok()) << figures;
  }
  const Path wrong = folder_.write("wrong.json", R"({"infra": {}, "figures": [{"value": "x"}]})");
  EXPECT_EQ(make_card({wrong}, {}).status().code(), Code::corrupt);
}

TEST_F(CardTest, RefusesWhatIsNoRun) {
  EXPECT_EQ(make_card({folder("empty")}, {}).status().code(), Code::not_found);
  EXPECT_EQ(make_card({folder_.write("x.json", "{}")}, {}).status().code(), Code::not_found);
  EXPECT_EQ(make_card({folder_.write("y.json", "{")}, {}).status().code(), Code::corrupt);
  EXPECT_EQ(make_card({folder_ / "nowhere"}, {}).status().code(), Code::not_found);
  for (const char* text :
       {R"({"gates": 3, "overall": {}})", R"({"gates": [], "overall": 1})", "[1]", R"({"points": 3, "probe_gb_s": 1})",
        R"({"models": 3})", R"({"teacher": 3, "categories": 4})"}) {
    EXPECT_EQ(make_card({folder_.write("z.json", text)}, {}).status().code(), Code::not_found) << text;
  }
}

TEST_F(CardTest, NamesAValueThatIsNone) {
  const Path quantize = folder_.write("q.json", R"({"effective_bits": "x", "recipe": 1})");
  EXPECT_EQ(make_card({quantize}, {}).status().message(),
            "card: /effective_bits: expected a number, got \"x\" (" + quantize.string() + ")");
  // What is missing is not measured, whatever else there is.
  const auto card = make_card(
      {folder_.write("g.json", R"({"gates": [{}, 3, {"id": "a", "verdict": "pass"}], "overall": {}, "latency": 3})"),
       folder_.write("b.json", R"({"points": [3, {}], "probe_gb_s": 1})"),
       folder_.write("d.json", R"({"teacher": "t", "categories": {"a~b/c": 1, "e": {"accepted": 2}}})")},
      {});
  ASSERT_TRUE(card.ok()) << card.status().text();
  EXPECT_NE(card->markdown.find("| a~b/c | 1 |"), std::string::npos) << card->markdown;
  EXPECT_NE(card->markdown.find("| e | 2 |"), std::string::npos) << card->markdown;
}

}  // namespace
}  // namespace nibble::gate
