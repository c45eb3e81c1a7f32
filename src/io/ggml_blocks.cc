#include "io/ggml_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/numeric.h"

namespace nibble {
namespace {

constexpr GgmlFormat kFormats[] = {
    {GgmlType::f32, "F32", 1, 4},       {GgmlType::f16, "F16", 1, 2},       {GgmlType::bf16, "BF16", 1, 2},
    {GgmlType::q4_0, "Q4_0", 32, 18},   {GgmlType::q8_0, "Q8_0", 32, 34},   {GgmlType::q4_k, "Q4_K", 256, 144},
    {GgmlType::q5_k, "Q5_K", 256, 176}, {GgmlType::q6_k, "Q6_K", 256, 210}, {GgmlType::nvfp4, "NVFP4", 64, 36},
};

// Those that people meet and nibble does not read, for messages.
constexpr std::pair<uint32_t, std::string_view> kOtherTypes[] = {
    {3, "Q4_1"},   {6, "Q5_0"},     {7, "Q5_1"},    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},
    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"},
    {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},   {26, "I32"},
    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},
};

uint8_t u8(const std::byte* p) {
  return static_cast<uint8_t>(*p);
}

float i8(const std::byte* p) {
  return static_cast<float>(static_cast<int8_t>(*p));
}

float f16(const std::byte* p) {
  return f16_to_f32(static_cast<uint16_t>(u8(p) | u8(p + 1) << 8));
}

void decode_q4_0(const std::byte* block, float* out) {
  const float d = f16(block);
  for (int i = 0; i < 16; ++i) {
    const int codes = u8(block + 2 + i);
    out[i] = d * static_cast<float>((codes & 15) - 8);
    out[i + 16] = d * static_cast<float>((codes >> 4) - 8);
  }
}

void decode_q8_0(const std::byte* block, float* out) {
  const float d = f16(block);
  for (int i = 0; i < 32; ++i) out[i] = d * i8(block + 2 + i);
}

struct ScaleMin {
  float scale, min;
};

/// Pair j of the twelve bytes of Q4_K and Q5_K.
ScaleMin scale_min(const std::byte* scales, int j) {
  const auto at = [&](int i) -> int { return u8(scales + i); };
  const bool whole = j < 4;
  const int sc = whole ? at(j) & 63 : (at(j + 4) & 15) | (at(j - 4) >> 6) << 4;
  const int m = whole ? at(j + 4) & 63 : at(j + 4) >> 4 | (at(j) >> 6) << 4;
  return {static_cast<float>(sc), static_cast<float>(m)};
}

/// Q4_K, and Q5_K where `high` holds the fifth bits.
void decode_q4_q5(const std::byte* block, const std::byte* high, const std::byte* low, float* out) {
  const float d = f16(block), dmin = f16(block + 2);
  for (int j = 0; j < 8; ++j) {
    const auto [sc, m] = scale_min(block + 4, j);
    const float scale = d * sc, min = dmin * m;
    for (int i = 0; i < 32; ++i) {
      int q = u8(low + 32 * (j / 2) + i) >> (j % 2 * 4) & 15;
      if (high != nullptr) q |= (u8(high + i) >> j & 1) << 4;
      out[32 * j + i] = scale * static_cast<float>(q) - min;
    }
  }
}

void decode_q4_k(const std::byte* block, float* out) {
  decode_q4_q5(block, nullptr, block + 16, out);
}

void decode_q5_k(const std::byte* block, float* out) {
  decode_q4_q5(block, block + 16, block + 48, out);
}

void decode_q6_k(const std::byte* block, float* out) {
  const float d = f16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte *ql = block + 64 * half, *qh = block + 128 + 32 * half, *scales = block + 192 + 8 * half;
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 32; ++i) {
        const int low = u8(ql + 32 * (j % 2) + i) >> (j / 2 * 4) & 15, top = u8(qh + i) >> (2 * j) & 3;
        const float scale = d * i8(scales + 2 * j + i / 16);
        out[128 * half + 32 * j + i] = scale * static_cast<float>((low | top << 4) - 32);
      }
    }
  }
}

void decode_nvfp4(const std::byte* block, float* out) {
  for (int sub = 0; sub < 4; ++sub) {
    const float d = e4m3_to_f32(u8(block + sub));
    for (int i = 0; i < 8; ++i) {
      const uint8_t codes = u8(block + 4 + 8 * sub + i);
      out[16 * sub + i] = d * e2m1_to_f32(codes & 15);
      out[16 * sub + 8 + i] = d * e2m1_to_f32(codes >> 4);
    }
  }
}

void decode_f32(const std::byte* block, float* out) {
  std::memcpy(out, block, 4);
}

void decode_f16(const std::byte* block, float* out) {
  *out = f16(block);
}

void decode_bf16(const std::byte* block, float* out) {
  *out = bf16_to_f32(static_cast<uint16_t>(u8(block) | u8(block + 1) << 8));
}

using Decode = void (*)(const std::byte* block, float* out);

Decode decoder(GgmlType type) {
  switch (type) {
    case GgmlType::f32:
      return decode_f32;
    case GgmlType::f16:
      return decode_f16;
    case GgmlType::bf16:
      return decode_bf16;
    case GgmlType::q4_0:
      return decode_q4_0;
    case GgmlType::q8_0:
      return decode_q8_0;
    case GgmlType::q4_k:
      return decode_q4_k;
    case GgmlType::q5_k:
      return decode_q5_k;
    case GgmlType::q6_k:
      return decode_q6_k;
    case GgmlType::nvfp4:
      return decode_nvfp4;
  }
  NIBBLE_CHECK(false);
  return nullptr;
}

}  // namespace

std::optional<GgmlFormat> ggml_format(uint32_t type) {
  for (const GgmlFormat& format : kFormats) {
    if (static_cast<uint32_t>(format.type) == type) return format;
  }
  return std::nullopt;
}

const GgmlFormat& ggml_format(GgmlType type) {
  for (const GgmlFormat& format : kFormats) {
    if (format.type == type) return format;
  }
  NIBBLE_CHECK(false);
  return kFormats[0];
}

std::string ggml_type_name(uint32_t type) {
  if (const auto format = ggml_format(type)) return std::string(format->name);
  for (const auto& [number, name] : kOtherTypes) {
    if (number == type) return std::string(name);
  }
  return fmt::format("type {}", type);
}

void ggml_decode(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const GgmlFormat& format = ggml_format(type);
  const auto weights = static_cast<size_t>(format.weights), bytes = static_cast<size_t>(format.bytes);
  const size_t n = out.size() / weights;
  NIBBLE_CHECK(out.size() % weights == 0 && n * bytes <= blocks.size());
  const Decode decode = decoder(type);
  for (size_t i = 0; i < n; ++i) decode(blocks.data() + i * bytes, out.data() + i * weights);
}

void encode_q8_0(std::span<const float> x, std::span<std::byte> out) {
  NIBBLE_CHECK(x.size() % 32 == 0 && out.size() == x.size() / 32 * 34);
  for (size_t b = 0; b < x.size() / 32; ++b) {
    const float* block = x.data() + 32 * b;
    std::byte* to = out.data() + 34 * b;
    float amax = 0;
    for (int i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(block[i]));
    const float d = amax / 127, inverse = d != 0 ? 1 / d : 0;
    const uint16_t bits = f32_to_f16(d);
    to[0] = static_cast<std::byte>(bits & 255);
    to[1] = static_cast<std::byte>(bits >> 8);
    for (int i = 0; i < 32; ++i) {
      // The inverse of a subnormal d overflows; such a block is zero in f16 whatever its codes are.
      const float q = std::clamp(std::round(block[i] * inverse), -127.0f, 127.0f);
      to[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::isnan(q) ? 0 : q));
    }
  }
}

void pack_nvfp4(std::span<const uint8_t> codes, std::span<const uint8_t> scales, std::span<std::byte> blocks) {
  NIBBLE_CHECK(scales.size() % 4 == 0 && codes.size() == 8 * scales.size() && blocks.size() == 9 * scales.size());
  for (size_t group = 0; group < scales.size(); ++group) {
    std::byte* block = blocks.data() + 36 * (group / 4);
    block[group % 4] = static_cast<std::byte>(scales[group]);
    const uint8_t* from = codes.data() + 8 * group;
    const auto code = [&](int i) { return from[i / 2] >> (i % 2 * 4) & 15; };
    std::byte* to = block + 4 + 8 * (group % 4);
    for (int i = 0; i < 8; ++i) to[i] = static_cast<std::byte>(code(i) | code(i + 8) << 4);
  }
}

void unpack_nvfp4(std::span<const std::byte> blocks, std::span<uint8_t> codes, std::span<uint8_t> scales) {
  NIBBLE_CHECK(scales.size() % 4 == 0 && codes.size() == 8 * scales.size() && blocks.size() == 9 * scales.size());
  for (size_t group = 0; group < scales.size(); ++group) {
    const std::byte* block = blocks.data() + 36 * (group / 4);
    scales[group] = u8(block + group % 4);
    const std::byte* from = block + 4 + 8 * (group % 4);
    const auto code = [&](int i) { return u8(from + i % 8) >> (i / 8 * 4) & 15; };
    uint8_t* to = codes.data() + 8 * group;
    for (int i = 0; i < 8; ++i) to[i] = static_cast<uint8_t>(code(2 * i) | code(2 * i + 1) << 4);
  }
}

}  // namespace nibble
