#include "train/report.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nibble::train {
namespace {

/// "" when every tag is closed in order and no attribute or text holds a stray '<'; else what is wrong.
std::string problem_of(std::string_view html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string_view::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string_view::npos) return "a tag that does not end";
    const std::string_view tag = html.substr(at + 1, end - at - 1);
    if (tag.starts_with('!') || tag.ends_with('/')) continue;
    if (tag.find('<') != std::string_view::npos) return "a tag in a tag: " + std::string(tag);
    const bool closes = tag.starts_with('/');
    const std::string name(tag.substr(closes ? 1 : 0, tag.find_first_of(" \n") - (closes ? 1 : 0)));
    if (!closes) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "closes " + name + " in " + (open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "leaves open " + open.back();
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

Report example() {
  Report report;
  report.title = "tiny-voice <script>alert(1)</script>";
  report.settings = {{"model", "models/tiny-voice"}, {"data & more", "a \"quoted\" <file>"}};
  report.results = {{"export", "out/x"}};
  for (int64_t step = 1; step <= 40; ++step) {
    const auto s = static_cast<double>(step);
    report.metrics.steps.push_back({.step = step,
                                    .loss = 2 / s,
                                    .lr = 1e-5 * s,
                                    .grad_norm = 3,
                                    .tokens = 1000,
                                    .loss_tokens = 270,
                                    .tok_s = 500,
                                    .seconds = 2});
  }
  report.metrics.evals = {{.step = 20, .kl = .0019}, {.step = 30, .kl = .0011}, {.step = 40, .kl = .0012}};
  report.metrics.flips = {{.step = 20, .flip = .01}, {.step = 40, .flip = .0234}};
  return report;
}

TEST(Report, HoldsTheValuesAndIsWellFormed) {
  const std::string html = to_html(example());
  EXPECT_EQ(problem_of(html), "");
  for (const char* part :
       {"2 -&gt; 0.05", "40000, 10800 of them trained", "80.0 s, 500 tokens/s", "0.0012, best 0.0011 at step 30",
        "2.34 %", "models/tiny-voice", "out/x", ">learning rate<", ">gradient norm<", ">tokens per second<",
        ">validation KL to the teacher<", ">changed codes, share of all<", "prefers-color-scheme: dark"}) {
    EXPECT_TRUE(contains(html, part)) << part;
  }
  EXPECT_FALSE(contains(html, ">validation cross-entropy<"));  // never measured
  EXPECT_FALSE(contains(html, "nan"));
}

TEST(Report, EscapesAndFetchesNothing) {
  const std::string html = to_html(example());
  EXPECT_FALSE(contains(html, "<script"));
  EXPECT_TRUE(contains(html, "&lt;script&gt;"));
  EXPECT_TRUE(contains(html, "data &amp; more"));
  EXPECT_TRUE(contains(html, "a &quot;quoted&quot; &lt;file&gt;"));
  for (const char* part : {"src=", "href=", "url(", "@import"}) EXPECT_FALSE(contains(html, part)) << part;
}

TEST(Report, OfARunThatMeasuredNothing) {
  const std::string html = to_html({.title = "empty", .settings = {}, .results = {}, .metrics = {}});
  EXPECT_EQ(problem_of(html), "");
  EXPECT_FALSE(contains(html, "<svg"));
}

}  // namespace
}  // namespace nibble::train
