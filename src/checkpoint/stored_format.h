// StoredFormat: what the config files of a checkpoint say about one module.
#pragma once

#include <string>

#include "checkpoint/module_format.h"

namespace nibble::checkpoint {

struct StoredFormat {
  std::string algo;  // in the layout's own word, for messages
  Format format = Format::unchanged;
  Inputs inputs = Inputs::a16;   // a8, a4: the module has a static input scale
  bool inputs_optional = false;  // where it has none, inputs come as they are
  bool low_rank = false;         // with the factors of SVDQuant beside the codes
  bool input_factors = false;    // the module may have a factor for each input, .pre_quant_scale

  bool quantized() const { return format != Format::unchanged; }
  bool operator==(const StoredFormat&) const = default;
};

}  // namespace nibble::checkpoint
