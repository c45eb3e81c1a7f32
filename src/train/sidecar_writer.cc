#include "train/sidecar_writer.h"

#include <algorithm>
#include <cstring>

#include "tensor/numeric.h"

namespace nibble::train {
namespace {

Path beside(const Path& path, const char* suffix) {
  Path name = path;
  name += suffix;
  return name;
}

std::string journal_line(const SidecarEntry& e, uint32_t check) {
  return fmt::format("{} {} {} {:08x}\n", e.key, e.first, e.count, check);
}

template <class T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

int64_t rows_of(const std::vector<SidecarEntry>& plan, size_t samples) {
  return samples == 0 ? 0 : plan[samples - 1].first + plan[samples - 1].count;
}

}  // namespace

Result<SidecarWriter> SidecarWriter::open(const Path& path, const SidecarHeader& header,
                                          std::vector<SidecarEntry> plan) {
  NIBBLE_CHECK(!plan.empty() && header.rows == rows_of(plan, plan.size()));
  NIBBLE_TRY(part, AppendFile::open(beside(path, ".part")));
  NIBBLE_RETURN_IF_ERROR(part.lock());  // before its name is looked up: a writer that was faster has taken it away
  NIBBLE_TRY(journal, AppendFile::open(beside(path, ".journal")));
  NIBBLE_TRY(before, MappedFile::open(beside(path, ".part")));
  NIBBLE_TRY(lines, read_file(beside(path, ".journal")));
  const std::string_view first(reinterpret_cast<const char*>(before.bytes().data()),
                               std::min(before.bytes().size(), kSidecarMagic.size()));
  if (!kSidecarMagic.starts_with(first)) {
    return invalid_argument("sidecar: expected an unfinished one or none, got another file ({})",
                            before.path().string())
        .with_hint("name another --sidecar");
  }
  SidecarWriter writer(path, std::move(plan), std::move(part), std::move(journal));
  NIBBLE_RETURN_IF_ERROR(lines.empty() ? writer.begin(header) : writer.resume(before, header, lines));
  return writer;
}

Status SidecarWriter::begin(const SidecarHeader& header) {
  head_ = sidecar_head(header);
  layout_ = parse_sidecar_head(as_bytes(head_), path_.string())->layout;
  dtype_ = header.dtype;
  NIBBLE_RETURN_IF_ERROR(part_.truncate(0));
  return part_.write(head_);
}

Status SidecarWriter::resume(const MappedFile& part, const SidecarHeader& wanted, std::string_view journal) {
  const std::string where = part.path().string();
  NIBBLE_TRY(head, parse_sidecar_head(part.bytes(), where));
  NIBBLE_RETURN_IF_ERROR(same_origin(head.header, wanted, where));
  layout_ = head.layout;
  dtype_ = wanted.dtype;
  head_.assign(reinterpret_cast<const char*>(part.bytes().data()), layout_.begin);

  const auto other_plan = [&] {
    return invalid_argument("sidecar: expected a file begun with the same conversations, got another ({})", where)
        .with_hint("name another --sidecar, or remove the files that end in .part and .journal to begin anew");
  };
  if (head.header.rows != wanted.rows) return other_plan();
  size_t kept_lines = 0;
  Crc32c block;
  while (done_ < plan_.size()) {
    const SidecarEntry& e = plan_[done_];
    const size_t end = journal.find('\n', kept_lines);
    if (end == std::string_view::npos) break;  // the last line is not complete
    const std::string_view line = journal.substr(kept_lines, end + 1 - kept_lines);
    if (!line.starts_with(fmt::format("{} {} {} ", e.key, e.first, e.count))) return other_plan();
    if (part.bytes().size() < layout_.end(e.first + e.count)) break;
    bool sound = true;
    for (int64_t row = e.first; row < e.first + e.count; ++row) {
      block.add(part.bytes().subspan(layout_.at(row), layout_.row_bytes));
      if ((row + 1) % kSidecarBlock != 0 && row + 1 != wanted.rows) continue;
      const uint32_t check = block.value();
      sound &= std::memcmp(part.bytes().data() + layout_.at(row) + layout_.row_bytes, &check, sizeof check) == 0;
      block = {};
    }
    if (!sound || line != journal_line(e, block.value())) break;
    block_ = block;
    kept_lines = end + 1;
    ++done_;
  }
  NIBBLE_RETURN_IF_ERROR(journal_.truncate(kept_lines));
  return part_.truncate(layout_.end(rows_of(plan_, done_)));
}

Status SidecarWriter::append(const Tensor& rows) {
  NIBBLE_CHECK(done_ < plan_.size());
  const SidecarEntry& e = plan_[done_];
  const int64_t hidden = rows.dim(1);
  NIBBLE_CHECK(rows.dim(0) == e.count && static_cast<uint64_t>(hidden) * size_of(dtype_) == layout_.row_bytes);
  std::string bytes;
  bytes.reserve(layout_.end(e.first + e.count) - layout_.end(e.first));
  for (int64_t i = 0; i < e.count; ++i) {
    const float* from = rows.f32() + i * hidden;
    const size_t begin = bytes.size();
    if (dtype_ == DType::f32) {
      bytes.append(reinterpret_cast<const char*>(from), layout_.row_bytes);
    } else {
      for (int64_t j = 0; j < hidden; ++j) bytes += bytes_of(f32_to_bf16(from[j]));
    }
    block_.add(as_bytes(std::string_view(bytes).substr(begin)));
    const int64_t behind = e.first + i + 1;
    if (behind % kSidecarBlock != 0 && behind != layout_.rows) continue;
    bytes += bytes_of(block_.value());
    block_ = {};
  }
  NIBBLE_RETURN_IF_ERROR(part_.write(bytes));
  NIBBLE_RETURN_IF_ERROR(journal_.write(journal_line(e, block_.value())));
  ++done_;
  return {};
}

Status SidecarWriter::commit() {
  NIBBLE_CHECK(done_ == plan_.size());
  std::vector<const SidecarEntry*> sorted;
  for (const SidecarEntry& e : plan_) sorted.push_back(&e);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  std::string index(bytes_of(uint64_t{sorted.size()}));
  for (const SidecarEntry* e : sorted) {
    NIBBLE_CHECK(e->key.size() == kSidecarKey);
    index.append(e->key).append(bytes_of(e->first)).append(bytes_of(e->count));
  }
  index += bytes_of(Crc32c().add(as_bytes(head_)).add(as_bytes(index)).value());
  NIBBLE_RETURN_IF_ERROR(part_.write(index));
  NIBBLE_RETURN_IF_ERROR(part_.commit(path_));
  std::error_code ignored;
  std::filesystem::remove(beside(path_, ".journal"), ignored);
  return {};
}

}  // namespace nibble::train
