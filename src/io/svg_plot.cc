#include "io/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>

namespace nibble {
namespace {

constexpr std::array<std::string_view, 6> kColours = {"#3f7fd0", "#e07b20", "#2f9e62", "#d64550", "#9a62c7", "#1f9aa8"};
constexpr int kLeft = 64, kRight = 16, kTop = 30, kBottom = 40;
constexpr size_t kMaxPoints = 1000;

using Points = std::vector<std::pair<double, double>>;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  bool empty() const { return low > high; }
  void add(double x) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  // A point becomes an interval around it.
  void widen() {
    if (low < high) return;
    const double half = low == 0 ? 1 : std::abs(low) * .1;
    low -= half;
    high += half;
  }
};

bool drawable(const Plot& plot, const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) && (!plot.log_y || point.second > 0);
}

Points thinned(const Points& points) {
  const size_t stride = (points.size() + kMaxPoints - 1) / kMaxPoints;
  if (stride <= 1) return points;
  Points out;
  for (size_t begin = 0; begin < points.size(); begin += stride) {
    const size_t end = std::min(begin + stride, points.size());
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += points[i].first;
      y += points[i].second;
    }
    out.emplace_back(x / static_cast<double>(end - begin), y / static_cast<double>(end - begin));
  }
  return out;
}

// Writes one chart; x and y map data to pixels.
class Drawing {
 public:
  explicit Drawing(const Plot& plot) : plot_(plot) {
    for (const PlotSeries& series : plot.series) {
      series_.push_back(thinned(series.points));
      for (const auto& point : series_.back()) {
        if (!drawable(plot, point)) continue;
        x_.add(point.first);
        y_.add(scaled(point.second));
      }
    }
  }

  std::string text() {
    put(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}" )"
        R"(font-family="system-ui, sans-serif" font-size="11" fill="currentColor">)",
        plot_.width, plot_.height, xml_escape(plot_.title));
    put(R"(<text x="{}" y="16" font-size="13" font-weight="600">{}</text>)", kLeft, xml_escape(plot_.title));
    if (x_.empty()) {
      put(R"(<text x="{}" y="{}" text-anchor="middle">no data</text>)", plot_.width / 2, plot_.height / 2);
    } else {
      x_.widen();
      y_.widen();
      axes();
      for (size_t i = 0; i < series_.size(); ++i) line(i);
      if (series_.size() > 1) legend();
    }
    out_ += "</svg>";
    return std::move(out_);
  }

 private:
  template <class... A>
  void put(fmt::format_string<A...> format, A&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<A>(args)...);
    out_ += '\n';
  }

  double scaled(double y) const { return plot_.log_y ? std::log10(y) : y; }
  double x(double value) const {
    return kLeft + (value - x_.low) / (x_.high - x_.low) * (plot_.width - kLeft - kRight);
  }
  double y(double value) const {
    return plot_.height - kBottom - (value - y_.low) / (y_.high - y_.low) * (plot_.height - kTop - kBottom);
  }
  static std::string_view colour(size_t i) { return kColours[i % kColours.size()]; }

  void axes() {
    const int bottom = plot_.height - kBottom, right = plot_.width - kRight;
    for (const double tick : plot_ticks(y_.low, y_.high)) {
      put(R"(<path d="M{} {:.1f}H{}" stroke="currentColor" stroke-opacity=".15"/>)", kLeft, y(tick), right);
      put(R"(<text x="{}" y="{:.1f}" text-anchor="end">{:.3g}</text>)", kLeft - 6, y(tick) + 4,
          plot_.log_y ? std::pow(10, tick) : tick);
    }
    for (const double tick : plot_ticks(x_.low, x_.high)) {
      put(R"(<text x="{:.1f}" y="{}" text-anchor="middle">{:.6g}</text>)", x(tick), bottom + 16, tick);
    }
    put(R"(<path d="M{} {}V{}H{}" fill="none" stroke="currentColor" stroke-opacity=".5"/>)", kLeft, kTop, bottom,
        right);
    put(R"(<text x="{}" y="{}" text-anchor="end">{}</text>)", right, plot_.height - 6, xml_escape(plot_.x_label));
  }

  void line(size_t i) {
    std::string path;
    bool down = false;  // whether the pen is
    size_t drawn = 0;
    for (const auto& point : series_[i]) {
      if (drawable(plot_, point)) {
        fmt::format_to(std::back_inserter(path), "{}{:.1f} {:.1f}", down ? 'L' : 'M', x(point.first),
                       y(scaled(point.second)));
        ++drawn;
      }
      down = drawable(plot_, point);
    }
    if (drawn == 0) return;
    put(R"(<path d="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-linejoin="round" stroke-linecap="round"/>)",
        path, colour(i));
    if (drawn > 30) return;
    for (const auto& point : series_[i]) {
      if (!drawable(plot_, point)) continue;
      put(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2.4" fill="{}"/>)", x(point.first), y(scaled(point.second)), colour(i));
    }
  }

  void legend() {
    int left = kLeft;
    for (size_t i = 0; i < plot_.series.size(); ++i) {
      const std::string& label = plot_.series[i].label;
      put(R"(<rect x="{}" y="{}" width="12" height="3" fill="{}"/>)", left, plot_.height - 13, colour(i));
      put(R"(<text x="{}" y="{}">{}</text>)", left + 17, plot_.height - 8, xml_escape(label));
      left += 34 + 6 * static_cast<int>(label.size());
    }
  }

  const Plot& plot_;
  std::vector<Points> series_;
  Range x_, y_;
  std::string out_;
};

}  // namespace

std::string xml_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> plot_ticks(double low, double high) {
  const double rough = (high - low) / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1., 2., 5.}) {
    if (rough <= factor * power) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  for (auto i = static_cast<int64_t>(std::ceil(low / step)); static_cast<double>(i) * step <= high; ++i) {
    ticks.push_back(static_cast<double>(i) * step);
  }
  return ticks;
}

std::string svg_plot(const Plot& plot) {
  return Drawing(plot).text();
}

}  // namespace nibble
