// The journal of a run: every answer of the teacher, by what it answers. What follows from the answers is computed
// again, so a run that was killed goes on as if it had not been.
//
// One JSON object a line. The first says what was asked for:
//   {"journal": "nibble generate", "version": 1, "recipe": …, "fingerprint": …, "seed": …}
// Then in the order in which they came, of each request:
//   {"category", "cell", "attempt", "step", "prompt": hash, "text"?, "calls"?: [{"name", "arguments"}], "finish",
//    "prompt_tokens", "completion_tokens", "ms", "time": unix seconds, "teacher"} or, with "lost": why, no answer.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "io/journal.h"
#include "synth/teacher.h"

namespace nibble::synth {

struct AnswerKey {
  std::string category;
  int64_t cell = 0;     // of the category: one request (write) or conversation (roll)
  int64_t attempt = 0;  // 0, and 1 for the round of repairs
  int64_t step = 0;     // requests of one attempt, from 0

  auto operator<=>(const AnswerKey&) const = default;
};

/// An answer, or why there is none.
struct Recorded {
  std::string prompt;  // hash of the question
  std::optional<std::string> lost;
  Answer answer;
};

/// SHA-256 of all that is sent, max_tokens and the model's name aside; the first 16 hex digits.
std::string prompt_hash(const Question& question);

/// Thread-safe.
class Answers {
 public:
  /// In memory alone, for previews and tests.
  Answers() = default;
  /// `teacher` goes into the lines that are written. A journal of another recipe or seed is `invalid_argument`.
  static Result<std::unique_ptr<Answers>> open(const Path& path, const Json& header, Journal::Mode mode,
                                               std::string teacher);

  /// What was recorded under the key for the same question.
  std::optional<Recorded> find(const AnswerKey& key, const std::string& prompt) const;
  Status add(const AnswerKey& key, const Recorded& recorded);

  size_t size() const;
  /// Calls `each` with everything that was recorded, by key.
  template <class Each>
  void for_each(const Each& each) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, recorded] : recorded_) each(key, recorded);
  }

 private:
  Status take(const Json& line);

  mutable std::mutex mutex_;
  std::map<AnswerKey, Recorded> recorded_;
  std::optional<Journal> journal_;
  std::string teacher_;
};

}  // namespace nibble::synth
