#include "io/svg_plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble {
namespace {

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SvgPlot, TicksAreRoundAndInside) {
  EXPECT_EQ(plot_ticks(0, 100), (std::vector<double>{0, 20, 40, 60, 80, 100}));
  for (const auto& [low, high] : {std::pair{1e-6, 9e-6}, {-3.0, 3.0}, {0.99, 1.01}, {1e9, 7e9}, {5.0, 6.3}}) {
    const std::vector<double> ticks = plot_ticks(low, high);
    EXPECT_GE(ticks.size(), 2u) << low;
    EXPECT_LE(ticks.size(), 7u) << low;
    EXPECT_GE(ticks.front(), low);
    EXPECT_LE(ticks.back(), high);
  }
}

TEST(SvgPlot, DrawsOneLineASeriesWithLegend) {
  const Plot plot{.title = "loss & <more>",
                  .x_label = "step",
                  .series = {{"train", {{0, 2}, {1, 1}, {2, .5}}}, {"val", {{2, .6}}}}};
  const std::string svg = svg_plot(plot);
  EXPECT_EQ(svg.find("<svg "), 0u);
  EXPECT_NE(svg.find("loss &amp; &lt;more&gt;"), std::string::npos);
  EXPECT_EQ(svg.find("<more>"), std::string::npos);
  EXPECT_EQ(count(svg, "stroke-linejoin"), 2u);
  EXPECT_NE(svg.find(">train</text>"), std::string::npos);
  EXPECT_NE(svg.find(">val</text>"), std::string::npos);
  EXPECT_EQ(count(svg, "<circle"), 4u);
  EXPECT_EQ(count(svg, "http"), 1u);  // the namespace, nothing to fetch
}

TEST(SvgPlot, GapsAndEmptyPlots) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string gap = svg_plot({.title = "t", .series = {{"a", {{0, 1}, {1, nan}, {2, 3}, {3, 4}}}}});
  EXPECT_EQ(gap.find("nan"), std::string::npos);
  EXPECT_NE(svg_plot({.title = "t"}).find("no data"), std::string::npos);
  EXPECT_NE(svg_plot({.title = "t", .series = {{"a", {{0, nan}}}}}).find("no data"), std::string::npos);
  EXPECT_EQ(svg_plot({.title = "t", .series = {{"a", {{3, 7}}}}}).find("inf"), std::string::npos);
  const std::string log = svg_plot({.title = "t", .series = {{"a", {{0, 0}, {1, 1e-5}, {2, 1e-3}}}}, .log_y = true});
  EXPECT_EQ(log.find("inf"), std::string::npos);
  EXPECT_EQ(count(log, "<circle"), 2u);
}

TEST(SvgPlot, LongSeriesAreThinnedOut) {
  PlotSeries series{"a", {}};
  for (int i = 0; i < 100000; ++i) series.points.emplace_back(i, std::sin(i * 1e-4));
  EXPECT_LT(svg_plot({.title = "t", .series = {series}}).size(), 20000u);
}

}  // namespace
}  // namespace nibble
