#include "train/sidecar_file.h"

#include <bit>
#include <cstring>

#include "io/json.h"
#include "tensor/numeric.h"
#include "train/crc32c.h"

namespace nibble::train {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kPrefix = kSidecarMagic.size() + sizeof(uint64_t);
constexpr uint64_t kAlignment = 64;
constexpr size_t kEntry = kSidecarKey + 2 * sizeof(uint64_t);

// What the arithmetic on offsets relies on: rows * hidden * 4 stays below 2^62.
constexpr uint64_t kMaxHeader = uint64_t{1} << 16;
constexpr int64_t kMaxHidden = int64_t{1} << 20, kMaxRows = int64_t{1} << 40;

template <class T>
T load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class... A>
Status broken(const std::string& where, fmt::format_string<A...> format, A&&... args) {
  return corrupt("sidecar: expected {} ({})", fmt::format(format, std::forward<A>(args)...), where)
      .with_hint("remove the file: the same command writes it anew");
}

// The texts of the header by their names in the file.
template <class Header, class F>
void for_each_text(Header& h, F f) {
  f("teacher_sha256", h.teacher);
  f("head_sha256", h.head);
  f("tokenizer_sha256", h.tokenizer);
  f("prompts_sha256", h.prompts);
  f("loss_kinds", h.loss_kinds);
  f("think_prefix", h.think_prefix);
  f("created", h.created);
}

bool read_integer(const Json& json, const char* key, int64_t limit, int64_t& to) {
  const Json* value = find_value(json, key);
  if (value == nullptr || !value->is_number_unsigned()) return false;
  const auto number = value->get<uint64_t>();
  to = static_cast<int64_t>(number);
  return number > 0 && number <= static_cast<uint64_t>(limit);
}

}  // namespace

std::string sidecar_head(const SidecarHeader& header) {
  Json json = {{"hidden", header.hidden}, {"dtype", name(header.dtype)}, {"rows", header.rows}};
  for_each_text(header, [&](const char* key, const std::string& value) { json[key] = value; });
  std::string text = json.dump();
  text.append((kAlignment - (kPrefix + text.size()) % kAlignment) % kAlignment, ' ');
  const uint64_t size = text.size();
  return std::string(kSidecarMagic) + std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

Result<ParsedSidecarHead> parse_sidecar_head(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < kPrefix || text_of(file.first(kSidecarMagic.size())) != kSidecarMagic) {
    return broken(where, "a file that begins with {}, got something else", kSidecarMagic);
  }
  const auto size = load<uint64_t>(file, kSidecarMagic.size());
  if (size > kMaxHeader || size > file.size() - kPrefix) {
    return broken(where, "a header of at most {} bytes, got {}", std::min<uint64_t>(kMaxHeader, file.size() - kPrefix),
                  size);
  }
  Result<Json> parsed = parse_json(text_of(file.subspan(kPrefix, size)), "header", {.max_depth = 4, .max_keys = 64});
  if (!parsed.ok()) return broken(where, "a header in JSON, got {}", parsed.status().message());
  const Json& json = *parsed;
  ParsedSidecarHead head;
  SidecarHeader& h = head.header;
  if (!json.is_object()) return broken(where, "a JSON object as header");
  if (!read_integer(json, "hidden", kMaxHidden, h.hidden)) return broken(where, "hidden from 1 to {}", kMaxHidden);
  if (!read_integer(json, "rows", kMaxRows, h.rows)) return broken(where, "rows from 1 to {}", kMaxRows);
  const Json* dtype = find_value(json, "dtype");
  if (dtype == nullptr || (*dtype != "f32" && *dtype != "bf16")) return broken(where, "dtype f32 or bf16");
  h.dtype = *dtype == "f32" ? DType::f32 : DType::bf16;
  Status status;
  for_each_text(h, [&](const char* key, std::string& to) {
    const Json* value = find_value(json, key);
    if (value != nullptr && value->is_string()) {
      to = value->get<std::string>();
    } else if (status.ok()) {
      status = broken(where, "{} as a string in the header", key);
    }
  });
  NIBBLE_RETURN_IF_ERROR(status);
  head.layout = {kPrefix + size, static_cast<uint64_t>(h.hidden) * size_of(h.dtype), h.rows};
  return head;
}

Status same_origin(const SidecarHeader& got, const SidecarHeader& wanted, const std::string& where) {
  const auto differs = [&](const char* what, const auto& theirs, const auto& ours) {
    return invalid_argument("sidecar: expected rows of {} {}, got those of {} ({})", what, ours, theirs, where)
        .with_hint("name another --sidecar, or remove the file: the same command writes it anew");
  };
  if (got.head != wanted.head) return differs("a teacher whose head is", got.head, wanted.head);
  if (got.teacher != wanted.teacher) return differs("teacher", got.teacher, wanted.teacher);
  if (got.tokenizer != wanted.tokenizer) return differs("tokenizer", got.tokenizer, wanted.tokenizer);
  if (got.hidden != wanted.hidden) return differs("width", got.hidden, wanted.hidden);
  if (got.dtype != wanted.dtype) return differs("dtype", name(got.dtype), name(wanted.dtype));
  return {};
}

Result<SidecarFile> SidecarFile::open(const Path& path) {
  NIBBLE_TRY(mapped, MappedFile::open(path));
  const std::string where = path.string();
  NIBBLE_TRY(head, parse_sidecar_head(mapped.bytes(), where));
  SidecarFile file;
  file.file_ = mapped;
  file.header_ = std::move(head.header);
  file.layout_ = head.layout;
  NIBBLE_RETURN_IF_ERROR(file.check_index(file.layout_.end(file.header_.rows), where));
  file.checked_.resize(static_cast<size_t>((file.header_.rows + kSidecarBlock - 1) / kSidecarBlock));
  return file;
}

Status SidecarFile::check_index(uint64_t begin, const std::string& where) {
  const std::span<const std::byte> all = file_.bytes();
  constexpr size_t kCount = sizeof(uint64_t), kCheck = sizeof(uint32_t);
  if (all.size() < begin || all.size() - begin < kCount + kCheck) {
    return broken(where, "at least {} bytes, got {}", begin + kCount + kCheck, all.size());
  }
  const auto count = load<uint64_t>(all, begin);
  const uint64_t bytes = all.size() - begin - kCount - kCheck;
  if (bytes % kEntry != 0 || count != bytes / kEntry) {
    return broken(where, "an index of {} samples up to the end, got {} bytes", count, bytes);
  }
  const uint32_t check = Crc32c().add(all.first(layout_.begin)).add(all.subspan(begin, kCount + bytes)).value();
  if (check != load<uint32_t>(all, all.size() - kCheck)) return broken(where, "a header and an index as written");
  index_ = all.subspan(begin + kCount, bytes);
  samples_ = static_cast<int64_t>(count);
  std::string_view last;
  for (int64_t i = 0; i < samples_; ++i) {
    const auto at = static_cast<size_t>(i) * kEntry;
    const std::string_view key = text_of(index_.subspan(at, kSidecarKey));
    const auto first = load<uint64_t>(index_, at + kSidecarKey), rows = load<uint64_t>(index_, at + kSidecarKey + 8);
    const auto total = static_cast<uint64_t>(header_.rows);
    if (key <= last || rows == 0 || rows > total || first > total - rows) {
      return broken(where, "samples in order, each with rows below {}, got rows {} to {}", total, first, rows);
    }
    last = key;
  }
  return {};
}

SidecarEntry SidecarFile::entry(int64_t i) const {
  const auto at = static_cast<size_t>(i) * kEntry;
  return {std::string(text_of(index_.subspan(at, kSidecarKey))), load<int64_t>(index_, at + kSidecarKey),
          load<int64_t>(index_, at + kSidecarKey + 8)};
}

std::optional<SidecarEntry> SidecarFile::find(std::string_view key) const {
  int64_t low = 0, high = samples_;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const std::string_view there = text_of(index_.subspan(static_cast<size_t>(middle) * kEntry, kSidecarKey));
    if (there == key) return entry(middle);
    (there < key ? low : high) = there < key ? middle + 1 : middle;
  }
  return std::nullopt;
}

Status SidecarFile::check_block(int64_t block) const {
  const int64_t first = block * kSidecarBlock, last = std::min(first + kSidecarBlock, header_.rows);
  const uint64_t begin = layout_.at(first), size = static_cast<uint64_t>(last - first) * layout_.row_bytes;
  if (Crc32c().add(file_.bytes().subspan(begin, size)).value() != load<uint32_t>(file_.bytes(), begin + size)) {
    return broken(path().string(), "rows {} to {} as written, got others", first, last - 1);
  }
  return {};
}

Status SidecarFile::read(int64_t row, float* to) {
  NIBBLE_CHECK(row >= 0 && row < header_.rows);
  const auto block = static_cast<size_t>(row / kSidecarBlock);
  if (!checked_[block]) NIBBLE_RETURN_IF_ERROR(check_block(static_cast<int64_t>(block)));
  checked_[block] = true;
  const std::byte* from = file_.bytes().data() + layout_.at(row);
  if (header_.dtype == DType::f32) {
    std::memcpy(to, from, layout_.row_bytes);
  } else {
    for (int64_t i = 0; i < header_.hidden; ++i) {
      uint16_t half;
      std::memcpy(&half, from + 2 * i, sizeof half);
      to[i] = bf16_to_f32(half);
    }
  }
  return {};
}

}  // namespace nibble::train
