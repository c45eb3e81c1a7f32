#include "train/split.h"

#include <set>

#include "base/sha256.h"
#include "io/jsonl.h"
#include "text/near_duplicates.h"
#include "train/record.h"

namespace nibble::train {
namespace {

// Uniform in [0, 1) by the first 52 bits of a hash.
double position(const std::string& group, uint64_t seed) {
  const std::string hex = Sha256().add_values(std::span<const uint64_t>(&seed, 1)).add(group).hex();
  return static_cast<double>(std::stoull(hex.substr(0, 13), nullptr, 16)) * 0x1p-52;
}

Status for_each_record(const Path& file, const Progress& progress,
                       const std::function<Status(const Record& record, std::string_view line)>& each) {
  return for_each_line(file, [&](const TextLine& line) -> Status {
    NIBBLE_TRY(record, parse_record(line.text, fmt::format("{}:{}", file.string(), line.number)));
    report(progress, line.read, line.size, file.filename().string());
    return each(record, line.text);
  });
}

Status write_line(OutputFile& out, std::string_view line) {
  NIBBLE_RETURN_IF_ERROR(out.write(line));
  return out.write("\n");
}

}  // namespace

Result<SplitReport> split_file(const Path& file, const Path& output, double share, uint64_t seed,
                               const Progress& progress) {
  if (!(share > 0 && share < 1)) return invalid_argument("valid: expected a share between 0 and 1, got {}", share);
  NIBBLE_TRY(folder, OutputFolder::create(output));
  NIBBLE_TRY(train, OutputFile::create(folder.path() / "train.jsonl"));
  NIBBLE_TRY(valid, OutputFile::create(folder.path() / "valid.jsonl"));
  SplitReport counts;
  std::set<std::string> groups, valid_groups;
  NIBBLE_RETURN_IF_ERROR(for_each_record(file, progress, [&](const Record& record, std::string_view line) {
    groups.insert(record.group);
    const bool held_out = position(record.group, seed) < share;
    if (held_out) valid_groups.insert(record.group);
    ++(held_out ? counts.valid : counts.train);
    return write_line(held_out ? valid : train, line);
  }));
  counts.groups = static_cast<int64_t>(groups.size());
  counts.valid_groups = static_cast<int64_t>(valid_groups.size());
  if (counts.train == 0 || counts.valid == 0) {
    return invalid_argument("{}: expected records on both sides, got {} for training and {} for validation",
                            file.string(), counts.train, counts.valid)
        .with_hint(fmt::format("its {} records form {} groups; another --seed or --valid may cut them",
                               counts.train + counts.valid, counts.groups));
  }
  NIBBLE_RETURN_IF_ERROR(train.commit());
  NIBBLE_RETURN_IF_ERROR(valid.commit());
  NIBBLE_RETURN_IF_ERROR(folder.commit());
  return counts;
}

Result<DedupeReport> dedupe_file(const Path& file, const Path& output, double near, const Progress& progress) {
  if (!(near >= 0 && near <= 1)) return invalid_argument("near: expected a similarity from 0 to 1, got {}", near);
  NIBBLE_TRY(out, OutputFile::create(output));
  DedupeReport counts;
  std::set<std::string> seen;
  text::NearDuplicates texts(near > 0 ? near : 1);
  NIBBLE_RETURN_IF_ERROR(for_each_record(file, progress, [&](const Record& record, std::string_view line) -> Status {
    ++counts.records;
    if (!seen.insert(content_key(record)).second) return {};
    if (near > 0) {
      const std::string spoken = spoken_text(record.messages);
      if (texts.find(spoken)) {
        ++counts.near;
        return {};
      }
      texts.add(spoken);
    }
    ++counts.kept;
    return write_line(out, line);
  }));
  NIBBLE_RETURN_IF_ERROR(out.commit());
  return counts;
}

}  // namespace nibble::train
