#include "synth/data_stats.h"

#include <algorithm>
#include <set>

#include "gate/chat_stream.h"
#include "io/jsonl.h"
#include "synth/conversation.h"
#include "synth/draw.h"
#include "text/detect.h"
#include "text/near_duplicates.h"
#include "text/prompt_lock.h"
#include "text/utf8.h"
#include "train/record.h"

namespace nibble::synth {
namespace {

// Gathers over records what the report counts.
class Counter {
 public:
  explicit Counter(const RecordCheck& check) : check_(check) { stats_.tokens_estimated = check.estimates(); }

  Status add(std::string_view line, std::string_view where) {
    ++stats_.records;
    const auto record = train::parse_record(line, where);
    if (!record.ok()) {
      ++stats_.bad;
      return {};
    }
    const auto tokens = check_.tokens({{"messages", record->messages}, {"tools", record->tools}});
    if (!tokens.ok()) {
      ++stats_.bad;
      return {};
    }
    lengths_.push_back(*tokens);
    ++stats_.categories[record->category];
    groups_.insert(record->group);
    prompts_.insert(text::system_prompt_of(record->messages));
    toolsets_.insert(text::tools_text_of(record->tools));
    repetitions(*record);
    return messages(record->messages);
  }

  DataStats finish() {
    stats_.groups = static_cast<int64_t>(groups_.size());
    stats_.system_prompts = static_cast<int64_t>(prompts_.size());
    stats_.toolsets = static_cast<int64_t>(toolsets_.size());
    if (lengths_.empty()) return stats_;
    std::sort(lengths_.begin(), lengths_.end());
    for (const int64_t length : lengths_) stats_.tokens += length;
    stats_.tokens_min = lengths_.front();
    stats_.tokens_median = lengths_[lengths_.size() / 2];
    stats_.tokens_p95 = lengths_[std::min(lengths_.size() - 1, lengths_.size() * 95 / 100)];
    stats_.tokens_max = lengths_.back();
    return stats_;
  }

 private:
  void repetitions(const train::Record& record) {
    if (!seen_.insert(train::content_key(record)).second) {
      ++stats_.duplicates;
      return;
    }
    const std::string text = train::spoken_text(record.messages);
    if (near_.find(text)) {
      ++stats_.near_duplicates;
    } else {
      near_.add(text);
    }
  }

  Status messages(const Json& messages) {
    bool called = false, empty = false, failed = false, thinks = false, marked = false;
    int64_t turns = 0;
    for (const Json& message : messages) {
      const auto role = message["role"].get<std::string>();
      const std::string text = text::sanitize_utf8(message["content"].get<std::string>());
      turns += role == "user" ? 1 : 0;
      if (role == "tool") {
        empty |= is_empty_result(text);
        failed |= is_failed_result(text);
      }
      if (role != "assistant") continue;
      ++stats_.replies;
      for_each_call(message, [&](const Json& function) {
        called = true;
        ++stats_.calls;
        ++stats_.tools[function["name"].get<std::string>()];
      });
      NIBBLE_TRY(thoughts, text::detect_think(text));
      NIBBLE_TRY(marks, text::detect_markdown(text));
      thinks |= !thoughts.empty() || find_value(message, "reasoning_content") != nullptr;
      marked |= !marks.empty();
    }
    stats_.user_turns += turns;
    ++stats_.turns[turns];
    stats_.with_calls += called ? 1 : 0;
    stats_.with_empty += empty ? 1 : 0;
    stats_.with_failed += failed ? 1 : 0;
    stats_.with_thinking += thinks ? 1 : 0;
    stats_.with_markdown += marked ? 1 : 0;
    return {};
  }

  const RecordCheck& check_;
  DataStats stats_;
  std::vector<int64_t> lengths_;
  std::set<std::string> groups_, prompts_, toolsets_, seen_;
  text::NearDuplicates near_{0.8};
};

}  // namespace

Result<DataStats> data_stats(const Path& file, const RecordCheck& check, const Progress& progress) {
  Counter counter(check);
  NIBBLE_RETURN_IF_ERROR(for_each_line(file, [&](const TextLine& line) -> Status {
    report(progress, line.read, line.size, file.filename().string());
    return counter.add(line.text, fmt::format("{}:{}", file.string(), line.number));
  }));
  return counter.finish();
}

Result<Overlaps> find_overlaps(const Path& file, const HoldOut& hold_out, bool pairs, size_t most,
                               const Progress& progress) {
  Overlaps overlaps;
  const auto note = [&](int64_t& count, std::vector<std::string>& shown, std::string text) {
    ++count;
    if (shown.size() < most) shown.push_back(std::move(text));
  };
  NIBBLE_RETURN_IF_ERROR(for_each_line(file, [&](const TextLine& line) -> Status {
    report(progress, line.read, line.size, file.filename().string());
    const std::string where = fmt::format("{}:{}", file.string(), line.number);
    const auto record = train::parse_record(line.text, where);
    if (!record.ok()) return {};
    if (const auto hit = hold_out.overlap_of(record->messages)) {
      note(overlaps.records, overlaps.shown, fmt::format("{}: {}: {}", where, hit->id, hit->text));
    }
    if (!pairs) return {};
    NIBBLE_TRY(row, parse_json(line.text, where));
    if (const auto pair = held_out_pair_of(gate::member(row, "meta"))) {
      note(overlaps.pair_records, overlaps.shown_pairs, fmt::format("{}: {} and {}", where, pair->first, pair->second));
    }
    return {};
  }));
  return overlaps;
}

}  // namespace nibble::synth
