// Line charts as SVG text, to be placed inside an HTML page. No scripts, no fonts, no references to anything outside.
// Lines and legend take a fixed palette that can be read on light and dark; axes and text take the page's
// `currentColor`.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

/// Text as it stands between tags or in a quoted attribute: & < > " ' are replaced.
std::string xml_escape(std::string_view text);

struct PlotSeries {
  std::string label;
  /// In ascending x. A point that is not finite breaks the line; more than about 1000 points are drawn as means of
  /// their neighbours.
  std::vector<std::pair<double, double>> points;
};

struct Plot {
  std::string title, x_label = {};
  std::vector<PlotSeries> series = {};  // at most 6 differ in colour
  bool log_y = false;                   // points at or below 0 are then left out
  int width = 640, height = 280;
};

/// An <svg> element with axes, ticks, grid and, for more than one series, a legend. Without a finite point it says
/// "no data".
std::string svg_plot(const Plot& plot);

/// Three to seven round numbers (1, 2 or 5 times a power of ten apart) that cover the inside of [low, high], low <
/// high.
std::vector<double> plot_ticks(double low, double high);

}  // namespace nibble
