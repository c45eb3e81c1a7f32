// What the consistency checks of both layouts share: the quantized modules of a folder and tests of their tensors.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/linear_layout.h"
#include "io/safetensors.h"
#include "model/config.h"

namespace nibble::checkpoint {

/// One module that has a weight of rank 2 or more, in whatever form.
struct StoredModule {
  using Entry = SafetensorsFolder::Entry;

  std::string name;
  const Entry* weight = nullptr;        // ".weight" or ".weight_packed"
  const Entry* scale = nullptr;         // ".weight_scale"
  const Entry* tensor_scale = nullptr;  // NVFP4
  const Entry* input_scale = nullptr;
  const Entry* low_rank_a = nullptr;
  const Entry* low_rank_b = nullptr;

  bool quantized() const { return fp8() || four_bits(); }
  bool fp8() const { return weight->info->dtype == "F8_E4M3"; }
  bool four_bits() const {
    return !fp8() && (weight->info->dtype == "U8" || scale != nullptr || tensor_scale != nullptr);
  }
};

class FolderCheck {
 public:
  using Entry = SafetensorsFolder::Entry;

  FolderCheck(const SafetensorsFolder& tensors, Layout layout);

  const std::vector<StoredModule>& modules() const { return modules_; }
  const StoredModule* find(const std::string& module) const;

  /// Codes, scales, and an input scale exactly if `inputs`; unset: it may be there.
  void check_tensors(const StoredModule& module, std::optional<bool> inputs);
  /// Linears that servers fuse: one format, one input scale, NVFP4 also one tensor scale.
  void check_fused();
  /// Every tensor of the source is there, as it was unless it was quantized.
  void check_against(const SafetensorsFolder& source);
  /// An untied model has a head, a tied one no quantized head.
  void check_head(const model::Config& config);

  template <class... A>
  void problem(fmt::format_string<A...> format, A&&... args) {
    problems_.push_back(fail(Code::corrupt, format, std::forward<A>(args)...));
  }
  std::vector<Status> take() { return std::move(problems_); }

 private:
  const Entry* part(const std::string& module, std::string_view suffix) const;
  void check_codes(const StoredModule& module);
  void check_block_scales(const StoredModule& module);
  void check_scalar(const StoredModule& module, const Entry* entry, std::string_view suffix);
  void check_channels(const StoredModule& module);
  void check_low_rank(const StoredModule& module);
  std::optional<float> scalar(const Entry* entry) const;

  const SafetensorsFolder& tensors_;
  const Layout layout_;
  std::vector<StoredModule> modules_;
  std::vector<Status> problems_;
};

}  // namespace nibble::checkpoint
