#include "tensor/device.h"

#include <charconv>

namespace nibble {

Result<Device> parse_device(std::string_view text) {
  if (text == "cpu") return Device{};
  if (text == "cuda") return Device{DeviceKind::cuda, 0};
  int index = -1;
  if (text.starts_with("cuda:")) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + 5, end, index);
    if (error != std::errc() || stop != end) index = -1;
  }
  if (index < 0) return invalid_argument("--device: expected cpu, cuda or cuda:N, got \"{}\"", text);
  return Device{DeviceKind::cuda, index};
}

}  // namespace nibble
