// Hidden states of the calibration set between two layers, in a file: they outlive the process, and memory holds only
// the rows at hand, however many tokens there are.
#pragma once

#include <cstdint>

#include "base/file.h"
#include "tensor/tensor.h"

namespace nibble::quantize {

/// [tokens,H] f32, mapped.
class HiddenStates {
 public:
  /// `corrupt` for a file of another size.
  static Result<HiddenStates> open(const Path& file, int64_t tokens, int64_t hidden);

  int64_t tokens() const { return tokens_; }
  /// A view [end-begin,H].
  Tensor rows(int64_t begin, int64_t end) const;
  /// Gives the pages of these rows back.
  void drop(int64_t begin, int64_t end) const;

 private:
  HiddenStates(MappedFile file, int64_t tokens, int64_t hidden)
      : file_(std::move(file)), tokens_(tokens), hidden_(hidden) {}

  MappedFile file_;
  int64_t tokens_, hidden_;
};

/// Writes such a file, rows in order; it appears by commit().
class HiddenStatesWriter {
 public:
  static Result<HiddenStatesWriter> create(const Path& file);
  Status append(const Tensor& rows);
  Status commit() { return file_.commit(); }

 private:
  explicit HiddenStatesWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

}  // namespace nibble::quantize
