// Reading weight rows: 16 consecutive weights of one row as f32 vectors, in order and exact in every format. Weights
// may lie in a mapped file, so nothing here assumes alignment.
#if defined(NIBBLE_OPS_WEIGHT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_WEIGHT_ROWS_INL_H_
#undef NIBBLE_OPS_WEIGHT_ROWS_INL_H_
#else
#define NIBBLE_OPS_WEIGHT_ROWS_INL_H_
#endif

#include "ops/linear/half_e4m3.h"
#include "ops/linear/linear.h"
#include "ops/simd-inl.h"
#include "tensor/numeric.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

using Vectors16 = V[kVectorsPer16];

struct F32Row {
  F32Row() = default;
  F32Row(const Linear& w, int64_t n) : bytes(static_cast<const std::byte*>(w.weight.raw()) + 4 * n * w.in) {}

  HWY_INLINE void load16(int64_t k, Vectors16& out) const {
    for (int64_t i = 0; i < kVectorsPer16; ++i) out[i] = load_f32(bytes + 4 * (k + i * kLanes));
  }
  void load_rest(int64_t k, int64_t n, float* out) const {
    std::memcpy(out, bytes + 4 * k, static_cast<size_t>(n) * sizeof(float));
  }

  const std::byte* bytes = nullptr;
};

struct Bf16Row {
  Bf16Row() = default;
  Bf16Row(const Linear& w, int64_t n) : bytes(static_cast<const std::byte*>(w.weight.raw()) + 2 * n * w.in) {}

  HWY_INLINE void load16(int64_t k, Vectors16& out) const {
    for (int64_t i = 0; i < kVectorsPer16; ++i) out[i] = load_bf16(bytes + 2 * (k + i * kLanes));
  }
  void load_rest(int64_t k, int64_t n, float* out) const {
    for (int64_t i = 0; i < n; ++i) {
      uint16_t bits;
      std::memcpy(&bits, bytes + 2 * (k + i), sizeof bits);
      out[i] = bf16_to_f32(bits);
    }
  }

  const std::byte* bytes = nullptr;
};

/// E4M3's fields, moved to those of binary16, are 2^-8 of the number: subnormals too, and without a table. NaN bytes
/// would become 480; no weight has them.
struct Fp8Row {
  Fp8Row() = default;
  Fp8Row(const Linear& w, int64_t n) : bytes(w.weight.u8() + n * w.in) {}

#if HWY_TARGET == HWY_SCALAR
  void load16(int64_t k, Vectors16& out) const {
    for (int64_t i = 0; i < 16; ++i) out[i] = hn::Set(D(), e4m3_to_f32(bytes[k + i]));
  }
#else
  HWY_INLINE void load16(int64_t k, Vectors16& out) const {
    const hn::Rebind<uint16_t, D> d16;
    for (int64_t i = 0; i < kVectorsPer16; ++i) {
      const auto wide = hn::PromoteTo(d16, hn::LoadU(hn::Rebind<uint8_t, D>(), bytes + k + i * kLanes));
      const auto sign = hn::ShiftLeft<8>(hn::And(wide, hn::Set(d16, 0x80)));
      const auto magnitude = hn::ShiftLeft<7>(hn::And(wide, hn::Set(d16, 0x7F)));
      const auto half = hn::BitCast(hn::Rebind<hwy::float16_t, D>(), hn::Or(sign, magnitude));
      out[i] = hn::Mul(hn::PromoteTo(D(), half), hn::Set(D(), 256.0f));
    }
  }
#endif
  void load_rest(int64_t k, int64_t n, float* out) const {
    for (int64_t i = 0; i < n; ++i) out[i] = e4m3_to_f32(bytes[k + i]);
  }

  const uint8_t* bytes = nullptr;
};

/// A block is eight bytes of codes and one scale byte. A table shuffle turns a code into twice its value, an integer;
/// the scale table holds the half that undoes it. e2m1 * e4m3 has at most 6 significant bits: exact.
struct Nvfp4Row {
  Nvfp4Row() = default;
  Nvfp4Row(const Linear& w, int64_t n)
      : codes(w.weight.u8() + n * w.in / 2), scales(w.block_scale.u8() + n * w.in / 16), half_scale(half_e4m3()) {}

#if HWY_TARGET == HWY_SCALAR
  void load16(int64_t k, Vectors16& out) const {
    const float scale = 2 * half_scale[scales[k / 16]];
    for (int64_t i = 0; i < 16; ++i) {
      const int code = codes[(k + i) / 2] >> (i % 2 * 4) & 0xF;
      out[i] = hn::Set(D(), e2m1_to_f32(static_cast<uint8_t>(code)) * scale);
    }
  }
#else
  HWY_INLINE void load16(int64_t k, Vectors16& out) const {
    const hn::FixedTag<uint8_t, 16> d8;
    const hn::FixedTag<int8_t, 16> di8;
    const auto packed = hn::ZeroExtendVector(d8, hn::LoadU(hn::FixedTag<uint8_t, 8>(), codes + k / 2));
    const auto low = hn::And(packed, hn::Set(d8, 0x0F));
    const auto high = hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(hn::FixedTag<uint16_t, 8>(), packed))),
                              hn::Set(d8, 0x0F));
    HWY_ALIGN static constexpr int8_t kTwice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const auto twice = hn::TableLookupBytes(hn::Load(di8, kTwice), hn::BitCast(di8, hn::InterleaveLower(low, high)));
    const V scale = hn::Set(D(), half_scale[scales[k / 16]]);
    spread(twice, scale, out);
  }
#endif
  void load_rest(int64_t, int64_t, float*) const {}  // in is a multiple of 16

  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  const float* half_scale = nullptr;

 private:
#if HWY_TARGET != HWY_SCALAR
  template <class V8>
  static HWY_INLINE void spread(V8 twice, V scale, Vectors16& out) {
    const hn::FixedTag<int8_t, 16> di8;
    const auto to_f32 = [&](auto part) HWY_ATTR {
      return hn::Mul(hn::ConvertTo(D(), hn::PromoteTo(hn::RebindToSigned<D>(), part)), scale);
    };
    if constexpr (kLanes == 16) {
      out[0] = to_f32(twice);
    } else if constexpr (kLanes == 8) {
      out[0] = to_f32(hn::LowerHalf(twice));
      out[1] = to_f32(hn::UpperHalf(hn::Half<decltype(di8)>(), twice));
    } else {
      out[0] = to_f32(hn::LowerHalf(hn::LowerHalf(twice)));
      out[1] = to_f32(hn::LowerHalf(hn::LowerHalf(hn::ShiftRightBytes<4>(di8, twice))));
      out[2] = to_f32(hn::LowerHalf(hn::LowerHalf(hn::ShiftRightBytes<8>(di8, twice))));
      out[3] = to_f32(hn::LowerHalf(hn::LowerHalf(hn::ShiftRightBytes<12>(di8, twice))));
    }
  }
#endif
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif
