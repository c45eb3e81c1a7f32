// The model card: what is known of a model, from the files that runs left, and nothing else.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"

namespace nibble::gate {

struct CardOptions {
  std::string title = "model";
  std::string base_model = {}, license = "not stated", language = "en";
  std::string description = {};  // a paragraph of the author's, printed as it is
  std::string citation = {};     // how to cite the model, printed as it is; empty: by its title
};

/// A number or a word of the card, and where it stands.
struct CardValue {
  std::string text;     // as printed
  std::string file;     // the file it was read from
  std::string pointer;  // its JSON pointer there ("/gates/3/rate"); of a metrics database "steps/last/loss"
};

struct Card {
  std::string markdown;
  std::vector<CardValue> values;  // every measured value of the markdown, in order
};

/// Each path is a folder or a file of a run:
///   report.json (gate, converse)     a column of the behaviour tables, in the order given
///   config.json (a checkpoint)       architecture
///   quantize.json                    format, strategy, sizes, error
///   metrics.db (train)               mode, data, learning rate, steps, losses
///   bench.json (bench --endpoint)    speed as a client sees it
///   *.json of nibble bench --json    speed;  of nibble eval --json   fidelity
///   *.manifest.json of generate      the data
/// A folder may hold several. Sections without a file say "not measured". `not_found` for a path without any of these,
/// `corrupt` for files that are not what their names say.
Result<Card> make_card(const std::vector<Path>& runs, const CardOptions& options);

}  // namespace nibble::gate
