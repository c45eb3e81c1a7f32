// The number formats of GGUF files: rows are cut into blocks, each a few bytes of scales and packed codes.
//
//          weights bytes  layout of a block                                                   decoded
//   F32          1     4
//   F16          1     2
//   BF16         1     2
//   Q4_0        32    18  d f16, qs[16]: weight i < 16 low nibble of byte i, i+16 high          d (q - 8)
//   Q8_0        32    34  d f16, qs[32] i8                                                      d q
//   Q4_K       256   144  d, dmin f16, scales[12], qs[128]                                      (d sc) q - (dmin m)
//   Q5_K       256   176  d, dmin f16, scales[12], qh[32], qs[128]                              (d sc) q - (dmin m)
//   Q6_K       256   210  ql[128], qh[64], scales[16] i8, d f16                                 (d sc) (q - 32)
//   NVFP4       64    36  d[4] e4m3, one per 16 weights, qs[32]: of 16 weights, weight i < 8
//                         the low nibble of byte i, weight i+8 the high one                     e4m3(d) e2m1(q)
//
// The 12 bytes of scales hold eight 6-bit pairs (sc, m), one per 32 weights: pair j < 4 in the low six bits of bytes j
// and j+4; pair j >= 4 has its low four bits in byte j+4 (sc low nibble, m high) and its high two in the top bits of
// bytes j-4 and j. In Q4_K and Q5_K, 32 bytes of qs hold 64 weights, the first 32 in the low nibbles; bit j of qh[i]
// is the fifth bit of weight 32j+i. In Q6_K each half of 128 weights has 64 bytes of ql and 32 of qh: weight 32j+i has
// its low four bits in nibble j/2 of ql[32(j%2)+i] and its high two in bits 2j of qh[i]; a scale serves 16 weights.
//
// Values are f32. The products are exact in f32 for all d, and so is every decoded value but for the one subtraction of
// Q4_K and Q5_K, which is rounded once: the bits are those of ggml's reference. NVFP4's values are without the tensor's
// own factor, which is a tensor beside it. (Layouts: ggml-common.h and ggml-quants.c of ggml-org/llama.cpp.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

/// The numbers that files give the formats that nibble reads.
enum class GgmlType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
  nvfp4 = 40,
};

struct GgmlFormat {
  GgmlType type;
  std::string_view name;  // "Q4_K"
  int64_t weights;        // of a block
  int64_t bytes;
};

/// Absent for numbers that name no format or one that nibble does not read.
std::optional<GgmlFormat> ggml_format(uint32_t type);
const GgmlFormat& ggml_format(GgmlType type);
/// "Q4_K", or for formats that nibble does not read ggml's name or "type 77".
std::string ggml_type_name(uint32_t type);

/// out = the values of whole blocks: out.size() is a multiple of the format's weights and fits `blocks`.
void ggml_decode(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

/// Q8_0 as ggml's reference rounds: d = max|x| / 127, q = x times the f32 1/d to nearest, ties away from zero; d is
/// stored as f16 after that. domain: finite, x.size() a multiple of 32, out of x.size() / 32 * 34 bytes.
void encode_q8_0(std::span<const float> x, std::span<std::byte> out);

/// One row of NVFP4 between the layouts: `codes` [K/2] with element 2i in the low nibble and `scales` [K/16], as
/// checkpoints hold them, and ggml's blocks. K is a multiple of 64. No bit is lost in either direction.
void pack_nvfp4(std::span<const uint8_t> codes, std::span<const uint8_t> scales, std::span<std::byte> blocks);
void unpack_nvfp4(std::span<const std::byte> blocks, std::span<uint8_t> codes, std::span<uint8_t> scales);

}  // namespace nibble
