// The tensors of a golden file; a missing one ends the test.
#pragma once

#include <span>
#include <string>

#include "io/safetensors.h"

namespace nibble::test {

class Golden {
 public:
  explicit Golden(const Path& file) : file_(std::move(Safetensors::open(file)).value()) {}

  Tensor operator[](const std::string& name) const {
    const TensorInfo* info = file_.find(name);
    NIBBLE_CHECK(info != nullptr);
    return std::move(file_.tensor(*info)).value();
  }
  std::span<const int32_t> ids(const std::string& name) const {
    const Tensor ids = (*this)[name];
    return {ids.i32(), static_cast<size_t>(ids.elements())};
  }
  template <class F>
  void for_each_input_amax(F visit) const {
    for (const TensorInfo& info : file_.tensors()) {
      if (info.name.starts_with("in_amax.")) visit(info.name.substr(8), *(*this)[info.name].f32());
    }
  }

 private:
  Safetensors file_;
};

}  // namespace nibble::test
