// How a GPU with block-scaled FP4 products (sm_120a, sm_121a) holds both operands of one: NVFP4 weights and inputs that
// are rounded to NVFP4. The instruction takes codes and scales as they are, so this is an order of bytes and nothing
// else. A weight is packed so at load when its inputs are rounded; one whose inputs are not lies as nvfp4_fragment.h
// says. No weight lies in memory twice.
//
// mma m16n8k64 multiplies A [16,64] with B [64,8]. With lane = 4g+c (PTX ISA, "Warp-level matrix multiply-accumulate",
// fragments of m16n8k64 and block scaling):
//   A       register i: row g + 8(i%2), columns 8c + 32(i/2) and the seven behind it, the first in the lowest bits
//   B       register i: column g, rows 8c + 32i and the seven behind it
//   D       register i: row g + 8(i/2), column 2c + i%2
//   scales  a word of four bytes, byte b for k = 16b .. 16b+15: of A from the lanes 4g (row g) and 4g+1 (row g+8), of B
//           from lane 4g (column g)
// Both operands are rows along k in memory, and two products side by side take 16 rows of B. Their registers are those
// of A in another order: register i of product h is word h + 2i. So one form serves both sides:
//
//   unit    16 rows x 64 columns
//   pair    two neighbouring units: 1024 bytes of codes, 128 of scales
//   codes   unit u of a pair, lane l, register i of A: the 32-bit word at 512u + 16l + 4i
//   scales  unit u of a pair, row r: the four bytes at 64u + 8(r%8) + 4(r/8)
//   matrix  tiles of 16 rows, each with its pairs in ascending order of columns; zeros fill the last tile and pair
#pragma once

#include "ops/linear/nvfp4_fragment.h"

namespace nibble::ops {

constexpr int kUnitCodeBytes = kPairCodeBytes / 2;
constexpr int kUnitScaleBytes = kPairScaleBytes / 2;

/// Where the eight codes of a word begin within their unit.
struct WordPlace {
  int row, column;
};
NIBBLE_HD constexpr WordPlace operand_word(int lane, int word) {
  return {lane / 4 + 8 * (word % 2), 8 * (lane % 4) + 32 * (word / 2)};
}
/// The lane and the word of a code, the inverse; the code is nibble column % 8 of it.
struct LaneWord {
  int lane, word;
};
NIBBLE_HD constexpr LaneWord operand_lane(int row, int column) {
  return {4 * (row % 8) + column % 32 / 8, row / 8 + 2 * (column / 32)};
}

/// A lane's registers of B for product `half`, out of its four words.
NIBBLE_HD constexpr int word_of_b(int half, int reg) {
  return half + 2 * reg;
}
/// The word of scales, of the 16 of a unit, of a row; the one that a lane hands to a product with the unit as A; and as
/// B of product `half`. Lanes that the product does not ask hand in some row's.
NIBBLE_HD constexpr int scales_of_row(int row) {
  return row % 8 * 2 + row / 8;
}
NIBBLE_HD constexpr int scales_of_a(int lane) {
  return lane / 4 * 2 + lane % 2;
}
NIBBLE_HD constexpr int scales_of_b(int lane, int half) {
  return lane / 4 * 2 + half;
}
/// Where register i of D stands.
NIBBLE_HD constexpr int result_row(int lane, int i) {
  return lane / 4 + 8 * (i / 2);
}
NIBBLE_HD constexpr int result_column(int lane, int i) {
  return lane % 4 * 2 + i % 2;
}

/// The first byte of a unit's codes; its scales begin at an eighth of that.
NIBBLE_HD constexpr int64_t unit_place(int64_t tile, int64_t unit, int64_t pairs) {
  return (tile * pairs * 2 + unit) * kUnitCodeBytes;
}

/// The four words of a lane, from codes [rows,columns/2] as files have them; zeros beyond the matrix. columns % 16 ==
/// 0.
NIBBLE_HD inline void gather_words(const uint8_t* codes, int64_t rows, int64_t columns, int64_t tile, int64_t unit,
                                   int lane, uint32_t (&words)[4]) {
  for (int i = 0; i < 4; ++i) {
    const WordPlace place = operand_word(lane, i);
    const int64_t row = tile * kTileRows + place.row, column = unit * kUnitColumns + place.column;
    words[i] = 0;
    if (row >= rows || column >= columns) continue;
    const uint8_t* from = codes + (row * columns + column) / 2;
    for (int b = 0; b < 4; ++b) words[i] |= static_cast<uint32_t>(from[b]) << (8 * b);
  }
}
/// The four scales of a row of a unit, from scales [rows,columns/16].
NIBBLE_HD inline uint32_t gather_scales(const uint8_t* scales, int64_t rows, int64_t columns, int64_t row,
                                        int64_t unit) {
  uint32_t word = 0;
  for (int b = 0; b < 4; ++b) {
    const int64_t block = unit * 4 + b;
    if (row < rows && block * 16 < columns) {
      word |= static_cast<uint32_t>(scales[row * (columns / 16) + block]) << (8 * b);
    }
  }
  return word;
}

/// A block of inputs in NVFP4 by strategy `max`, as ops/quant/nvfp4.h has it.
struct QuantizedBlock {
  uint32_t low, high;  // its first and last eight codes
  uint8_t scale;
};
NIBBLE_HD inline QuantizedBlock quantize_block(const float (&x)[kNvfp4Block], float ws2) {
  uint32_t amax = 0;  // magnitudes are ordered as their bits are, and NaN lies above all
  for (const float v : x) amax = (f32_bits(v) & 0x7FFFFFFF) > amax ? f32_bits(v) & 0x7FFFFFFF : amax;
  QuantizedBlock block{0, 0, nvfp4_block_scale(f32_from_bits(amax), ws2)};
  const float step = nvfp4_step(block.scale, ws2);
  for (int i = 0; i < 8; ++i) {
    block.low |= static_cast<uint32_t>(nvfp4_code(x[i], step)) << (4 * i);
    block.high |= static_cast<uint32_t>(nvfp4_code(x[8 + i], step)) << (4 * i);
  }
  return block;
}

}  // namespace nibble::ops
