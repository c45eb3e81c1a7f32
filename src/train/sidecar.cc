#include "train/sidecar.h"

#include <algorithm>
#include <set>

#include "train/sidecar_writer.h"

namespace nibble::train {
namespace {

Batch alone(const Sample& sample, Objective objective) {
  const Sample* const one = &sample;
  return make_batch({&one, 1}, objective);
}

std::string name_of(const Sample& sample) {
  return sample.id.empty() ? fmt::format("line {}", sample.line) : fmt::format("line {} ({})", sample.line, sample.id);
}

// The rows of a batch that have a KL weight, side by side.
Tensor kl_rows(Context& cx, const Batch& batch, const Tensor& hidden) {
  const int64_t width = hidden.dim(1);
  const Tensor rows = cx.arena.f32({batch.kl_rows, width});
  float* to = rows.f32();
  for (int64_t t = 0; t < batch.tokens(); ++t) {
    if (batch.kl[static_cast<size_t>(t)] > 0) to = std::copy_n(hidden.f32() + t * width, width, to);
  }
  return rows;
}

// Where a sample is missing: what differs between how the file and this run turn conversations into samples.
std::string hint_for(const SidecarHeader& got, const SidecarHeader& wanted) {
  std::string changed;
  const auto compare = [&](const char* what, const std::string& a, const std::string& b) {
    if (a != b) changed += fmt::format("{}{}", changed.empty() ? "" : ", ", what);
  };
  compare("the loss kinds", got.loss_kinds, wanted.loss_kinds);
  compare("the think prefix", got.think_prefix, wanted.think_prefix);
  compare("the conversations, their tools or the template", got.prompts, wanted.prompts);
  if (changed.empty()) changed = "the conversations";
  return fmt::format("since it was written {} changed: name another --sidecar, or remove the file to write it anew",
                     changed);
}

}  // namespace

DType head_operand(Numeric numeric) {
  return numeric == Numeric::exact ? DType::f32 : DType::bf16;
}

Status write_sidecar(Context& cx, Teacher& teacher, std::span<const Sample* const> samples, Objective objective,
                     SidecarHeader header, const Path& path, const Progress& progress) {
  std::vector<const Sample*> scored;
  std::vector<SidecarEntry> plan;
  std::set<std::string_view> keys;
  header.rows = 0;
  for (const Sample* sample : samples) {
    const int64_t rows = alone(*sample, objective).kl_rows;
    if (rows == 0 || !keys.insert(sample->key).second) continue;
    scored.push_back(sample);
    plan.push_back({sample->key, header.rows, rows});
    header.rows += rows;
  }
  if (plan.empty()) return invalid_argument("sidecar: expected conversations with a KL loss, got none");
  NIBBLE_TRY(writer, SidecarWriter::open(path, header, std::move(plan)));

  uint64_t total = 0, done = 0;
  for (size_t i = writer.done(); i < scored.size(); ++i) total += static_cast<uint64_t>(scored[i]->tokens());
  while (writer.done() < scored.size()) {
    const Sample& sample = *scored[writer.done()];
    const Arena::Scope scope(cx.arena);
    const Batch batch = alone(sample, objective);
    const Result<Tensor> hidden = teacher.hidden(cx, batch);
    if (hidden.status().code() == Code::cancelled) {
      return cancelled("sidecar: stopped after {} of {} conversations ({})", writer.done(), scored.size(),
                       path.string())
          .with_hint("the same command goes on from there");
    }
    NIBBLE_RETURN_IF_ERROR(hidden.status());
    NIBBLE_RETURN_IF_ERROR(writer.append(kl_rows(cx, batch, *hidden)));
    done += static_cast<uint64_t>(sample.tokens());
    report(progress, done, total, name_of(sample));
  }
  return writer.commit();
}

Result<SidecarTeacher> SidecarTeacher::open(const Path& path, const SidecarHeader& wanted, const ops::Linear& head) {
  NIBBLE_TRY(file, SidecarFile::open(path));
  NIBBLE_RETURN_IF_ERROR(same_origin(file.header(), wanted, path.string()));
  NIBBLE_CHECK(wanted.hidden == head.in);
  std::string hint = hint_for(file.header(), wanted);
  return SidecarTeacher(std::move(file), std::move(hint), head);
}

Result<SidecarEntry> SidecarTeacher::entry_of(const Sample& sample, int64_t rows) const {
  const std::optional<SidecarEntry> entry = file_.find(sample.key);
  if (entry && entry->count == rows) return *entry;
  return invalid_argument("sidecar: {}: expected {} rows for these ids and this mask, got {} ({})", name_of(sample),
                          rows, entry ? std::to_string(entry->count) : "none", file_.path().string())
      .with_hint(hint_);
}

Status SidecarTeacher::holds(std::span<const Sample* const> samples, Objective objective) const {
  for (const Sample* sample : samples) {
    const int64_t rows = alone(*sample, objective).kl_rows;
    if (rows > 0) NIBBLE_RETURN_IF_ERROR(entry_of(*sample, rows).status());
  }
  return {};
}

Result<Tensor> SidecarTeacher::hidden(Context& cx, const Batch& batch) {
  NIBBLE_CHECK(file_.header().dtype == head_operand(cx.numeric));
  const Tensor hidden = cx.arena.f32({batch.tokens(), head_.in});
  std::ranges::fill(hidden.f32_span(), 0.0f);
  for (size_t b = 0; b < batch.samples.size(); ++b) {
    const auto begin = batch.kl.begin() + batch.segments[b], end = batch.kl.begin() + batch.segments[b + 1];
    const int64_t rows = std::count_if(begin, end, [](float weight) { return weight > 0; });
    if (rows == 0) continue;
    NIBBLE_TRY(entry, entry_of(*batch.samples[b], rows));
    int64_t next = entry.first;
    for (int64_t t = batch.segments[b]; t < batch.segments[b + 1]; ++t) {
      if (batch.kl[static_cast<size_t>(t)] == 0) continue;
      NIBBLE_RETURN_IF_ERROR(file_.read(next++, hidden.f32() + t * head_.in));
    }
  }
  return hidden;
}

}  // namespace nibble::train
