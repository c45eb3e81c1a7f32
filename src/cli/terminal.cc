#include "cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>

namespace nibble::cli {
namespace {

// The display width of UTF-8 text whose characters are one column wide each.
size_t columns(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

const CancelToken& shared_token() {
  static const CancelToken token;
  return token;
}

void on_signal(int number) {
  if (shared_token().cancelled()) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  shared_token().cancel();
}

}  // namespace

std::string human_bytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 || value >= 99.95 ? fmt::format("{:.0f} {}", value, kUnits[unit])
                                     : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - columns(row[i]) + 2, ' ');
    }
    text += line + '\n';
  }
  return text;
}

std::string printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) c = '?';
  }
  return text;
}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

Progress ProgressBar::callback() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  return [this](const ProgressUpdate& update) { draw(update); };
}

void ProgressBar::draw(const ProgressUpdate& update) {
  const double elapsed = clock_.seconds();
  if (update.done < update.total && elapsed - last_draw_s_ < 0.1) return;
  last_draw_s_ = elapsed;
  drawn_ = true;
  const double share = update.total == 0 ? 0 : static_cast<double>(update.done) / static_cast<double>(update.total);
  constexpr int kWidth = 24;
  std::string bar;
  for (int i = 0; i < kWidth; ++i) bar += i < static_cast<int>(share * kWidth) ? "█" : "░";
  const std::string eta = share > 0 ? clock_text(elapsed / share - elapsed) : "-:--";
  const std::string count = bytes_ ? human_bytes(update.done) + " / " + human_bytes(update.total)
                                   : fmt::format("{} / {}", update.done, update.total);
  fmt::print(stderr, "\r\033[K{} {} {:3.0f}%  {}  ETA {}  {}", title_, bar, share * 100, count, eta, update.what);
  std::fflush(stderr);
}

CancelToken interrupt_token() {
  shared_token();  // constructed before a handler can run
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  return shared_token();
}

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

}  // namespace nibble::cli
