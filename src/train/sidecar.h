// The teacher of a distillation from a file: its logits are a function of its post-norm hidden states, and the file
// holds those of every row with a KL weight in the type that the head's product reads. The head is the teacher's own,
// so every logit is what a resident teacher gives, bit for bit.
#pragma once

#include "base/progress.h"
#include "train/sidecar_file.h"
#include "train/teacher.h"

namespace nibble::train {

/// f32 under Numeric::exact, else bf16.
DType head_operand(Numeric numeric);

/// Lets `teacher` read every sample with a KL loss, one at a time, each key once, and writes `path`; where an earlier
/// attempt was broken off it goes on. Of `header` everything but rows is the caller's. A set cx.cancel ends it with
/// `cancelled` after what is done is safe. Progress counts the tokens of this attempt.
Status write_sidecar(Context& cx, Teacher& teacher, std::span<const Sample* const> samples, Objective objective,
                     SidecarHeader header, const Path& path, const Progress& progress = {});

/// Not thread-safe.
class SidecarTeacher : public Teacher {
 public:
  /// `head` must outlive it. Errors: those of the file, and `invalid_argument` when it comes from another teacher,
  /// head or tokenizer, or in another type, than `wanted` says.
  static Result<SidecarTeacher> open(const Path& path, const SidecarHeader& wanted, const ops::Linear& head);

  /// `invalid_argument` that names the first sample with a KL loss whose ids and mask are not in the file.
  Status holds(std::span<const Sample* const> samples, Objective objective) const;

  Result<Tensor> hidden(Context& cx, const Batch& batch) override;
  const ops::Linear& head() const override { return head_; }

 private:
  SidecarTeacher(SidecarFile file, std::string hint, const ops::Linear& head)
      : file_(std::move(file)), hint_(std::move(hint)), head_(head) {}

  Result<SidecarEntry> entry_of(const Sample& sample, int64_t rows) const;

  SidecarFile file_;
  std::string hint_;  // what to do about a sample that is not there
  const ops::Linear& head_;
};

}  // namespace nibble::train
