#include "ops/optim/moment_code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace nibble::ops {
namespace {

TEST(MomentCode, Entries) {
  const MomentCode &s = signed_moment_code(), &u = unsigned_moment_code();
  for (const MomentCode* code : {&s, &u}) {
    for (size_t i = 1; i < 256; ++i) EXPECT_LT(code->value[i - 1], code->value[i]) << i;
    EXPECT_EQ(code->value[255], 1);
  }
  EXPECT_EQ(s.value[127], 0);
  EXPECT_EQ(u.value[0], 0);
  EXPECT_FLOAT_EQ(s.value[128], 5.5e-7f);
  EXPECT_FLOAT_EQ(s.value[126], -5.5e-7f);
  EXPECT_FLOAT_EQ(u.value[1], 3.25e-7f);
  EXPECT_FLOAT_EQ(s.value[254], static_cast<float>(0.1 + 0.9 * 63.5 / 64));
  EXPECT_FLOAT_EQ(s.value[0], -s.value[254]);  // -1 is not there
}

TEST(MomentCode, NearestIsNearestAndTiesGoDown) {
  Rng rng(67);
  for (const MomentCode* code : {&signed_moment_code(), &unsigned_moment_code()}) {
    for (int i = 0; i < 20000; ++i) {
      const float x = rng.uniform(-1, 1) * std::pow(10.0f, rng.uniform(-8, 0));
      const auto distance = [&](float value) { return std::abs(static_cast<double>(value) - x); };
      const auto best = std::min_element(code->value.begin(), code->value.end(),
                                         [&](float a, float b) { return distance(a) < distance(b); });
      const float found = code->value[code->nearest(x)];
      EXPECT_LE(distance(found), distance(*best) * (1 + 1e-6)) << x;
    }
    for (size_t i = 0; i < 255; ++i) {
      EXPECT_EQ(code->nearest(code->midpoint[i]), i);
      EXPECT_EQ(code->nearest(std::nextafter(code->midpoint[i], 2.0f)), i + 1);
      EXPECT_EQ(code->nearest(code->value[i]), i);
    }
  }
}

TEST(MomentCode, BlocksThereAndBack) {
  Rng rng(71);
  for (const int64_t n : {1, 100, 256}) {
    const auto size = static_cast<size_t>(n);
    std::vector<float> x(size), y(size);
    std::vector<uint8_t> codes(size);
    for (float& value : x) value = 1e-4f * rng.normal();
    const float absmax = encode_signed_moment(x.data(), n, codes.data());
    decode_moment(signed_moment_code(), codes.data(), absmax, n, y.data());
    for (size_t i = 0; i < size; ++i) EXPECT_NEAR(y[i], x[i], 0.008f * absmax);  // half of the widest gap
    for (float& value : x) value *= value;
    const float largest = encode_unsigned_moment(x.data(), n, codes.data());
    decode_moment(unsigned_moment_code(), codes.data(), largest, n, y.data());
    for (size_t i = 0; i < size; ++i) EXPECT_NEAR(y[i], x[i], 0.004f * largest);
  }
}

TEST(MomentCode, ZerosAndTinySecondMoments) {
  std::vector<float> x(256, 0), y(256, 7);
  std::vector<uint8_t> codes(256, 99);
  EXPECT_EQ(encode_unsigned_moment(x.data(), 256, codes.data()), 0);
  decode_moment(unsigned_moment_code(), codes.data(), 0, 256, y.data());
  EXPECT_EQ(y, x);
  EXPECT_EQ(encode_signed_moment(x.data(), 256, codes.data()), 0);
  decode_moment(signed_moment_code(), codes.data(), 0, 256, y.data());
  EXPECT_EQ(y, x);

  x[0] = 1;
  x[1] = 1e-30f;  // far below the smallest code
  encode_unsigned_moment(x.data(), 256, codes.data());
  EXPECT_EQ(codes[0], 255);
  EXPECT_EQ(codes[1], 1);
  EXPECT_EQ(codes[2], 0);
  encode_signed_moment(x.data(), 256, codes.data());
  EXPECT_EQ(codes[1], 127);
}

}  // namespace
}  // namespace nibble::ops
