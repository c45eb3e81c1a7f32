// What a calibrated strategy decided about one layer, in memory and as a file of the unfinished output, so that work
// which took hours is done once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "quantize/quantize.h"

namespace nibble::quantize {

struct SolvedModule {
  std::string module;
  SolvedLinear solved;
  double loss = 0;   // squared error of its outputs on the calibration set over their energy; 0: not measured
  std::string note;  // what went otherwise than asked, or empty
};

/// Movable; tensors view `buffers` or `mapping`.
struct LayerSolution {
  std::vector<SolvedModule> linears;
  std::vector<std::pair<std::string, Tensor>> tensors;  // unquantized ones that changed, by tensor name
  std::vector<Buffer> buffers;
  std::optional<MappedFile> mapping;

  LayerSolution() = default;
  LayerSolution(LayerSolution&&) = default;
  LayerSolution& operator=(LayerSolution&&) = default;

  Tensor own(DType type, const Shape& shape);
  const SolvedModule* find(std::string_view module) const;
  const Tensor* tensor(std::string_view name) const;

  /// The file appears complete or not at all.
  Status save(const Path& file) const;
  /// `corrupt` for a file that is none of ours.
  static Result<LayerSolution> load(const Path& file);
};

}  // namespace nibble::quantize
