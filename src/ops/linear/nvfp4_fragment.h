// How a GPU holds an NVFP4 weight: the order of its codes and scales, and the arithmetic that makes operands of them.
//
// Tensor cores multiply a fragment of 16 rows by 16 columns, of which lane 4g+c of a warp holds the columns 2c, 2c+1,
// 2c+8, 2c+9 of the rows g and g+8. A product's terms may be added in any fixed order, so nothing says that the columns
// of a fragment are neighbours in the matrix: here lane 4g+c always takes its columns from block c of a unit of four
// blocks (64 columns). A lane then decodes two scales per unit instead of eight, and reads 16 consecutive inputs.
//
//   unit     16 rows x 64 columns, 4 steps; step j multiplies the columns 16c+4j .. 16c+4j+3 of lanes 4g+c
//   pair     two neighbouring units: 1024 bytes of codes, 128 of scales
//   codes    unit u of a pair, lane l, step j: the 32-bit word at 512u + 16l + 4j
//   scales   lane l of a pair: the four bytes at 4l: unit 0 row g, unit 0 row g+8, unit 1 row g, unit 1 row g+8
//   matrix   tiles of 16 rows, each with its pairs in ascending order of columns; zeros fill the last tile and pair
//
// A word holds the codes of registers 0..3 of the fragment (row g columns 0,1 of the step; row g+8 columns 0,1; row g
// columns 2,3; row g+8 columns 2,3), two in each: the first in bits 0..15, the second in bits 16..31. Signs and
// magnitudes lie where few instructions bring them to their places in BF16, bit 15 and bits 8..6:
//   register    0        1        2        3
//   sign        15       12       9        14
//   magnitude   8..6     5..3     2..0     13, 10, 11
// The last one's bit 13 is that of the magnitude xor the magnitude's lowest: one product brings all four bits to their
// places, and adds the lowest to the highest.
// Read as BF16, sign and magnitude there are code * 2^-126. The scale is stored as (e+9) << 3 | m for 2^e (1 + m/8),
// which covers all 126 E4M3 numbers above zero, subnormals too; shifted by 4 and added to 0x7600 it is BF16 for scale *
// 2^118. Their product, code * scale * 2^-8, is exact in BF16. A block with scale 0 is stored as zeros under the
// smallest scale.
#pragma once

#include "tensor/numeric.h"

namespace nibble::ops {

constexpr int kTileRows = 16;
constexpr int kUnitColumns = 64;
constexpr int kPairColumns = 128;
constexpr int kPairCodeBytes = 1024;
constexpr int kPairScaleBytes = 128;
/// What the product of decoded operands must be multiplied with beside the tensor scale.
constexpr float kFragmentFactor = 256;

NIBBLE_HD constexpr int64_t tiles_of(int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}
NIBBLE_HD constexpr int64_t pairs_of(int64_t columns) {
  return (columns + kPairColumns - 1) / kPairColumns;
}

/// Where a code (row, column) lies: the byte offset of its word, and the register and half (0 or 1) within.
struct CodePlace {
  int64_t word;
  int reg, half;
};
NIBBLE_HD constexpr CodePlace code_place(int64_t row, int64_t column, int64_t pairs) {
  const int r = static_cast<int>(row % kTileRows), k = static_cast<int>(column % kPairColumns);
  const int g = r % 8, block = k % kUnitColumns / 16, in_block = k % 16;
  const int64_t pair = row / kTileRows * pairs + column / kPairColumns;
  const int in_pair = k / kUnitColumns * 512 + (4 * g + block) * 16 + in_block / 4 * 4;
  return {pair * kPairCodeBytes + in_pair, in_block % 4 / 2 * 2 + r / 8, in_block % 2};
}
/// The byte offset of the scale of block column/16.
NIBBLE_HD constexpr int64_t scale_place(int64_t row, int64_t column, int64_t pairs) {
  const int r = static_cast<int>(row % kTileRows), k = static_cast<int>(column % kPairColumns);
  const int64_t pair = row / kTileRows * pairs + column / kPairColumns;
  const int in_pair = (4 * (r % 8) + k % kUnitColumns / 16) * 4 + k / kUnitColumns * 2 + r / 8;
  return pair * kPairScaleBytes + in_pair;
}

/// The bits of `code` in its word.
NIBBLE_HD constexpr uint32_t place_code(uint32_t code, int reg, int half) {
  const uint32_t sign = code >> 3 & 1, magnitude = code & 7, low = code & 1;
  if (reg == 3)
    return (sign << 14 | (magnitude >> 2 ^ low) << 13 | low << 11 | (magnitude >> 1 & 1) << 10) << 16 * half;
  return (sign << 9 | magnitude) << (6 - 3 * reg) << 16 * half;
}
NIBBLE_HD constexpr uint8_t take_code(uint32_t word, int reg, int half) {
  word >>= 16 * half;
  if (reg == 3) {
    const uint32_t low = word >> 11 & 1, high = (word >> 13 & 1) ^ low;
    return static_cast<uint8_t>((word >> 14 & 1) << 3 | high << 2 | (word >> 10 & 1) << 1 | low);
  }
  word >>= 6 - 3 * reg;
  return static_cast<uint8_t>((word >> 9 & 1) << 3 | (word & 7));
}

/// The stored form of an E4M3 byte above zero, and back. 0 becomes the smallest scale: its codes must be zeros.
NIBBLE_HD constexpr uint8_t place_scale(uint8_t e4m3) {
  int e = e4m3 >> 3, m = e4m3 & 7;
  if (e > 0) return static_cast<uint8_t>((e - 7 + 9) << 3 | m);
  if (m == 0) return 0;
  e = -6;
  for (; m < 8; m *= 2) --e;  // 2^-6 * m/8 with m < 8
  return static_cast<uint8_t>((e + 9) << 3 | (m & 7));
}
NIBBLE_HD constexpr uint8_t take_scale(uint8_t stored) {
  const int e = (stored >> 3) - 9, m = stored & 7;
  if (e >= -6) return static_cast<uint8_t>((e + 7) << 3 | m);
  return static_cast<uint8_t>((8 | m) >> (-6 - e));
}

/// The four registers of a word, each two BF16 numbers code * 2^-126.
NIBBLE_HD inline void codes_to_bf16(uint32_t word, uint32_t (&regs)[4]) {
  constexpr uint32_t kCode = 0x81C081C0;
  regs[0] = word & kCode;
  regs[1] = word << 3 & kCode;
  regs[2] = word << 6 & kCode;
  // Bits 9, 8, 6 and 5 by 6, 0, 0 and 2 to the left.
  regs[3] = (word >> 5 & 0x03600360) * (64 + 4 + 1) & kCode;
}
/// Two stored scales, in bits 0..7 and 16..23, as two BF16 numbers scale * 2^118.
NIBBLE_HD inline uint32_t scales_to_bf16(uint32_t stored) {
  return stored * 16 + 0x76007600;
}

}  // namespace nibble::ops
