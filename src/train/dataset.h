// A JSONL file as samples, with a report of what it holds and what was left out.
#pragma once

#include <map>

#include "base/file.h"
#include "base/progress.h"
#include "text/prompt_lock.h"
#include "train/sample.h"

namespace nibble::train {

struct DatasetOptions {
  SampleOptions sample = {};
  bool skip_bad = false;        // train on the sound records of a file that has bad ones
  bool drop_duplicates = true;  // of samples with the same ids and mask only the first stays
  size_t max_errors = 20;       // kept and shown; all are counted
};

/// Of a list of lengths; zeros for an empty one. Quantiles are values of the list (nearest rank).
struct Lengths {
  int64_t min = 0, median = 0, p95 = 0, max = 0;
};
Lengths lengths_of(std::vector<int64_t> values);

struct DatasetReport {
  int64_t records = 0;            // lines that are not blank
  int64_t bad = 0;                // of these, with an error
  int64_t without_loss = 0;       // of these, sound but with nothing to train
  int64_t samples = 0;            // kept
  int64_t too_long = 0;           // samples dropped
  int64_t duplicates = 0;         // samples dropped
  int64_t turns = 0;              // trained assistant messages
  int64_t turns_without_end = 0;  // of these, without <|im_end|> among what is trained
  int64_t tokens = 0, loss_rows = 0;
  Lengths sample_tokens, turn_tokens;
  std::map<std::string, int64_t> categories;  // samples; "" where none is named
  std::vector<std::string> errors;            // "FILE:LINE: …", the first max_errors
  std::string hash;                           // SHA-256 of all samples in order: what a resumed run must find again
  text::PromptLock lock;                      // what the server must use
  std::string prompt_lock;                    // SHA-256 of its hashes: of system prompts, tool definitions, template

  double loss_share() const { return tokens == 0 ? 0 : static_cast<double>(loss_rows) / static_cast<double>(tokens); }
};

struct Dataset {
  std::vector<Sample> samples;  // in the order of the file
  DatasetReport report;
};

/// Reads all records. A file with bad ones is `corrupt`, with the first of their errors, unless skip_bad; one without
/// any loss row is `invalid_argument`. Progress counts bytes.
Result<Dataset> load_dataset(const Path& file, const text::Tokenizer& tokenizer,
                             const text::ChatTemplate& chat_template, const DatasetOptions& options,
                             const Progress& progress = {});

/// The same without a verdict: bad records are in the report, and a file without samples is one with a report.
Result<Dataset> inspect_dataset(const Path& file, const text::Tokenizer& tokenizer,
                                const text::ChatTemplate& chat_template, const DatasetOptions& options,
                                const Progress& progress = {});

}  // namespace nibble::train
