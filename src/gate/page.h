// The page that the HTML reports are: sections made here, then plays, where there are any, that a script shows on
// request. One file, no request: its policy (CSP) allows the script of this binary and nothing else, so no text of a
// model can run or load anything.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/embedded_file.h"
#include "base/file.h"
#include "gate/report.h"
#include "io/json.h"

namespace nibble::gate {

/// page.css and page.js.
std::span<const EmbeddedFile> page_files();

/// A page while it is written; memory does not grow with the plays. Without finish() no file appears.
class Page {
 public:
  static Result<Page> create(const Path& file, std::string_view title);

  /// A piece of the body, HTML as it is.
  Status add(std::string_view html) { return out_.write(html); }

  /// Before the first play: the filters, and the names of the sides, one or two.
  Status begin_plays(std::string_view heading, const std::vector<std::string>& sides);
  /// A row to filter by and list: {id, repeat, category, gates, found, sides: [{verdict, fails}]}; and what is shown
  /// when it is opened: an element of report.json's conversations for each side.
  Status add_play(Json row, Json sides);

  Status finish();

 private:
  explicit Page(OutputFile out) : out_(std::move(out)) {}
  Status write_block();

  OutputFile out_;
  bool has_plays_ = false;                             // without plays the script has nothing to do
  Json rows_ = Json::array(), plays_ = Json::array();  // of the block being filled
};

/// What the row of a play says of one side: {verdict: clean, passed, failed or error, fails: [gates]}.
Json side_json(const Recipe& recipe, const Case& one, const CaseRecord& record);
/// The row of a play, or of a pair of them.
Json row_json(const Recipe& recipe, const Case& one, const std::vector<const CaseRecord*>& sides);

/// A table of cells that are HTML already. Heads that begin with "*" stand over text, to the left. A row of
/// one cell is about the row before it and as wide as the table.
std::string cells_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

/// A link that filters the plays: "#name=value&…".
std::string filter_link(std::string_view text, const std::vector<std::pair<std::string, std::string>>& filters);

/// "87.5 %".
std::string percent_text(double rate);

/// TTFAT by turn of the conversation, a line a series; empty where no conversation has two turns.
std::string ttfat_plot(const std::vector<std::pair<std::string, std::vector<std::pair<double, double>>>>& series);
/// Its points: the median (or p95) of each turn, from 1.
std::vector<std::pair<double, double>> by_turn(const Latency& latency, double Distribution::*value);

/// What was run: recipe, model, server, time, machine.
std::string run_facts(const Json& run);

}  // namespace nibble::gate
