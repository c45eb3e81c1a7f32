// The header of a safetensors file: from bytes to checked tensor ranges. Total over all inputs. The rules stand in
// safetensors.h, whose implementation this is.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace nibble {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of the data section
  std::map<std::string, std::string> metadata;
  std::string_view json;  // views into the parsed bytes
  size_t data_begin = 0;  // offset of the data section in the file
};

/// Parses the header of a file whose whole contents are `file`; `where` names it in messages.
Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file, std::string_view where);

/// Bits per element of every dtype that the format knows, 0 for other words.
int safetensors_bits(std::string_view dtype);

/// Bytes of a tensor of this shape, or nothing if they do not fit 63 bits, are no whole number, or a dim is negative.
std::optional<uint64_t> tensor_bytes(std::span<const int64_t> shape, int bits);

}  // namespace nibble
