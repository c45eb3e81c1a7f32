// CRC32C (Castagnoli): the check of "123456789" is 0xE3069283.
#pragma once

#include <boost/crc.hpp>
#include <span>

namespace nibble::train {

class Crc32c {
 public:
  Crc32c& add(std::span<const std::byte> bytes) {
    crc_.process_bytes(bytes.data(), bytes.size());
    return *this;
  }
  /// Of everything added so far; more may follow.
  uint32_t value() const { return crc_.checksum(); }

 private:
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc_;
};

}  // namespace nibble::train
