// For tests: plans over the tensor tables of the released models.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "quantize/plan.h"

namespace nibble::quantize::testing_plan {

inline TensorInfo info(std::string name, std::vector<int64_t> shape, DType type = DType::bf16) {
  TensorInfo info;
  info.name = std::move(name);
  info.type = type;
  info.dtype = safetensors_name(type);
  info.shape = std::move(shape);
  info.bytes = size_of(type);
  for (int64_t dim : info.shape) info.bytes *= static_cast<uint64_t>(dim);
  return info;
}

// The tensor table of a released model: name, dtype, dims joined by x.
inline std::vector<TensorInfo> released_tensors(const std::string& size, const std::string& form) {
  std::ifstream file(NIBBLE_SOURCE_DIR "/tests/golden/qwen35_tables/tensors." + size + "." + form + ".tsv");
  EXPECT_TRUE(file.good());
  std::vector<TensorInfo> tensors;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name, dtype, dims;
    fields >> name >> dtype >> dims;
    std::vector<int64_t> shape;
    std::istringstream numbers(dims);
    for (std::string dim; std::getline(numbers, dim, 'x');) shape.push_back(std::stoll(dim));
    tensors.push_back(info(name, shape, *dtype_from_safetensors(dtype)));
  }
  return tensors;
}

inline Result<Plan> plan(const std::vector<TensorInfo>& tensors, PlanOptions options = {}) {
  if (options.rules.empty()) options.rules = uniform_recipe(Scales::max, Inputs::a16).rules;
  std::vector<const TensorInfo*> pointers;
  for (const TensorInfo& tensor : tensors) pointers.push_back(&tensor);
  return make_plan(pointers, options);
}

inline const PlannedTensor& find(const Plan& plan, std::string_view name) {
  const auto it = std::find_if(plan.tensors.begin(), plan.tensors.end(),
                               [&](const PlannedTensor& tensor) { return tensor.source->name == name; });
  EXPECT_NE(it, plan.tensors.end()) << name;
  return *it;
}

}  // namespace nibble::quantize::testing_plan
