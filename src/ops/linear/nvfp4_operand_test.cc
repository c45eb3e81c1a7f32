// The walk of the kernel of block-scaled products, on a CPU: operands packed by the functions that kernels use go, lane
// by lane and through the same maps, into an m16n8k64 product that is written here from the fragment layout of the PTX
// ISA, and the results meet the f64 oracle.
#include "ops/linear/nvfp4_operand.h"

#include <set>

#include "ops/quant/fake_inputs.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble::ops {
namespace {

using test::TestTensor;

/// What the 32 lanes of a warp hand to mma.m16n8k64.kind::mxf4nvf4.block_scale.scale_vec::4X with selectors 0.
struct Product {
  uint32_t a[32][4], b[32][2], a_scales[32], b_scales[32];
};

double code_at(uint32_t word, int nibble) {
  return static_cast<double>(e2m1_to_f32(static_cast<uint8_t>(word >> (4 * nibble) & 15)));
}
double scale_at(uint32_t word, int byte) {
  return static_cast<double>(e4m3_to_f32(static_cast<uint8_t>(word >> (8 * byte))));
}

/// D += A B. PTX ISA 9.0, "Matrix fragments for mma.m16n8k64", .e2m1: element i of 32 of a lane is
///   A  row = lane >> 2, plus 8 for 8 <= i < 16 and i >= 24; column = (lane % 4) * 8 + (i & 7), plus 32 for i >= 16
///   B  element i of 16: row = (lane % 4) * 8 + (i & 7), plus 32 for i >= 8; column = lane >> 2
///   D  element i of 4: row = lane >> 2, plus 8 for i >= 2; column = (lane % 4) * 2 + (i & 1)
/// and by "Block scaling" with thread selector 0 the first lane of four gives the scales of row lane >> 2 of A and of
/// column lane >> 2 of B, the second those of row (lane >> 2) + 8 of A.
void multiply(const Product& p, double (&d)[32][4]) {
  double a[16][64], b[64][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, in_group = lane & 3;
    for (int i = 0; i < 32; ++i) {
      const int row = (i < 8 || (i >= 16 && i < 24)) ? group : group + 8;
      const int column = in_group * 8 + (i & 7) + (i < 16 ? 0 : 32);
      const uint32_t scales = p.a_scales[row < 8 ? row * 4 : (row - 8) * 4 + 1];
      a[row][column] = code_at(p.a[lane][i / 8], i % 8) * scale_at(scales, column / 16);
    }
    for (int i = 0; i < 16; ++i) {
      const int row = in_group * 8 + (i & 7) + (i < 8 ? 0 : 32);
      b[row][group] = code_at(p.b[lane][i / 8], i % 8) * scale_at(p.b_scales[group * 4], row / 16);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = (lane & 3) * 2 + (i & 1);
      for (int k = 0; k < 64; ++k) d[lane][i] += a[row][k] * b[k][column];
    }
  }
}

/// An operand in the memory of a GPU.
struct Packed {
  int64_t tiles, pairs;
  std::vector<uint32_t> codes, scales;

  Packed(int64_t rows, int64_t columns)
      : tiles(tiles_of(rows)),
        pairs(pairs_of(columns)),
        codes(static_cast<size_t>(tiles * pairs * kPairCodeBytes / 4), 0xA5A5A5A5),
        scales(static_cast<size_t>(tiles * pairs * kPairScaleBytes / 4), 0xA5A5A5A5) {}

  const uint32_t* words(int64_t tile, int64_t unit, int lane) const {
    return codes.data() + (unit_place(tile, unit, pairs) + lane * 16) / 4;
  }
  uint32_t* words(int64_t tile, int64_t unit, int lane) {
    return const_cast<uint32_t*>(std::as_const(*this).words(tile, unit, lane));
  }
  const uint32_t* unit_scales(int64_t tile, int64_t unit) const {
    return scales.data() + unit_place(tile, unit, pairs) / 8 / 4;
  }
  uint32_t* unit_scales(int64_t tile, int64_t unit) {
    return const_cast<uint32_t*>(std::as_const(*this).unit_scales(tile, unit));
  }
};

/// As the kernel that packs weights: a lane of a unit at a time.
Packed pack_weight(const Linear& w) {
  Packed packed(w.out, w.in);
  for (int64_t tile = 0; tile < packed.tiles; ++tile) {
    for (int64_t unit = 0; unit < 2 * packed.pairs; ++unit) {
      for (int lane = 0; lane < 32; ++lane) {
        uint32_t words[4];
        gather_words(w.weight.u8(), w.out, w.in, tile, unit, lane, words);
        std::copy_n(words, 4, packed.words(tile, unit, lane));
      }
      for (int row = 0; row < kTileRows; ++row) {
        packed.unit_scales(tile, unit)[scales_of_row(row)] =
            gather_scales(w.block_scale.u8(), w.out, w.in, tile * kTileRows + row, unit);
      }
    }
  }
  return packed;
}

/// As the kernel that rounds inputs: a block at a time, each row under its own tensor scale. Rows behind the last keep
/// what lies there.
Packed pack_inputs(const TestTensor& x, const std::vector<float>& ws2) {
  const int64_t rows = x.view.dim(0), columns = x.view.dim(1);
  Packed packed(rows, columns);
  for (int64_t t = 0; t < rows; ++t) {
    const int row = static_cast<int>(t % kTileRows);
    for (int64_t unit = 0; unit < 2 * packed.pairs; ++unit) {
      uint32_t scales = 0;
      for (int b = 0; b < 4; ++b) {
        QuantizedBlock block{};
        if (const int64_t column = unit * kUnitColumns + 16 * b; column < columns) {
          float values[16];
          std::copy_n(x.view.f32() + t * columns + column, 16, values);
          block = quantize_block(values, ws2[static_cast<size_t>(t)]);
        }
        const LaneWord first = operand_lane(row, 16 * b), second = operand_lane(row, 16 * b + 8);
        packed.words(t / kTileRows, unit, first.lane)[first.word] = block.low;
        packed.words(t / kTileRows, unit, second.lane)[second.word] = block.high;
        scales |= static_cast<uint32_t>(block.scale) << (8 * b);
      }
      packed.unit_scales(t / kTileRows, unit)[scales_of_row(row)] = scales;
    }
  }
  return packed;
}

/// Sums [T,out] without tensor scales: inputs as A, weights as B, two products per 16 of their rows.
std::vector<double> products(const Packed& x, const Packed& w, int64_t T, int64_t out) {
  std::vector<double> y(static_cast<size_t>(T * out));
  for (int64_t tokens = 0; tokens < x.tiles; ++tokens) {
    for (int64_t rows = 0; rows < w.tiles; ++rows) {
      for (int half = 0; half < 2; ++half) {
        double d[32][4] = {};
        for (int64_t unit = 0; unit < 2 * w.pairs; ++unit) {
          Product p;
          for (int lane = 0; lane < 32; ++lane) {
            std::copy_n(x.words(tokens, unit, lane), 4, p.a[lane]);
            for (int i = 0; i < 2; ++i) p.b[lane][i] = w.words(rows, unit, lane)[word_of_b(half, i)];
            p.a_scales[lane] = x.unit_scales(tokens, unit)[scales_of_a(lane)];
            p.b_scales[lane] = w.unit_scales(rows, unit)[scales_of_b(lane, half)];
          }
          multiply(p, d);
        }
        for (int lane = 0; lane < 32; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int64_t t = tokens * kTileRows + result_row(lane, i);
            const int64_t n = rows * kTileRows + 8 * half + result_column(lane, i);
            if (t < T && n < out) y[static_cast<size_t>(t * out + n)] = d[lane][i];
          }
        }
      }
    }
  }
  return y;
}

struct Case {
  int64_t tokens, out, in;
};
// Tiles, units and pairs that are full, cut and alone.
const std::vector<Case> kCases = {{16, 16, 128}, {1, 1, 16},    {7, 8, 48},    {8, 9, 64},     {9, 17, 80},
                                  {17, 33, 272}, {65, 40, 112}, {128, 96, 64}, {3, 130, 1040}, {31, 15, 144}};

TEST(Nvfp4Operand, EveryCodeHasItsOwnWordAndEveryRowItsScales) {
  std::set<std::pair<int, int>> words;
  std::set<int> scales;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 64; column += 8) {
      const LaneWord at = operand_lane(row, column);
      ASSERT_TRUE(at.lane >= 0 && at.lane < 32 && at.word >= 0 && at.word < 4);
      const WordPlace back = operand_word(at.lane, at.word);
      EXPECT_TRUE(back.row == row && back.column == column);
      words.emplace(at.lane, at.word);
    }
    scales.insert(scales_of_row(row));
  }
  EXPECT_EQ(words.size(), 128u);
  EXPECT_EQ(scales.size(), 16u);
  EXPECT_EQ(*scales.rbegin(), 15);
}

TEST(Nvfp4Operand, BlocksAreThoseOfTheQuantizer) {
  test::TestContext context;
  Rng rng(181);
  const TestTensor x = TestTensor::normal(rng, {40, 64});
  for (int64_t i = 0; i < 64; ++i) x.values()[static_cast<size_t>(i)] *= i < 16 ? 0.0f : 1e-6f;
  const float amax = 2;  // larger values saturate
  TestTensor codes({40, 32}, DType::u8), scales({40, 4}, DType::f8e4m3);
  nvfp4_quantize(context.cx, x.view, amax, codes.view, scales.view);
  const float ws2 = nvfp4_tensor_scale(amax).ws2;
  for (int64_t b = 0; b < 160; ++b) {
    float values[16];
    std::copy_n(x.view.f32() + 16 * b, 16, values);
    const QuantizedBlock block = quantize_block(values, ws2);
    ASSERT_EQ(block.scale, scales.view.u8()[b]);
    for (int i = 0; i < 8; ++i) {
      const uint32_t word = i < 4 ? block.low : block.high;
      ASSERT_EQ(static_cast<uint8_t>(word >> (i % 4 * 8)), codes.view.u8()[8 * b + i]);
    }
  }
}

TEST(Nvfp4Operand, ProductsUnderAStaticScaleMeetTheOracle) {
  test::TestContext context;
  Rng rng(182);
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {} x {}", c.tokens, c.out, c.in));
    test::TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, c.out, c.in);
    const TestTensor x = TestTensor::normal(rng, {c.tokens, c.in});
    TestTensor rounded({c.tokens, c.in});
    const float input_scale = 0.0009f;  // cuts the largest values
    nvfp4_fake(context.cx, x.view, {input_scale, false}, rounded.view);
    const auto expected = oracle::linear(rounded.doubles(), w.decoded, static_cast<size_t>(c.in), w.factors());
    const Packed inputs = pack_inputs(x, std::vector<float>(static_cast<size_t>(c.tokens), input_scale));
    const auto sums = products(inputs, pack_weight(w.linear), c.tokens, c.out);
    for (size_t i = 0; i < sums.size(); ++i) {
      const double got = sums[i] * static_cast<double>(input_scale) * static_cast<double>(w.linear.tensor_scale);
      // Decoded values carry one rounding of code * scale * input_scale, which the product of codes does not make.
      ASSERT_NEAR(got, expected.y[i], 0x1p-23 * expected.magnitudes[i]) << i;
    }
  }
}

TEST(Nvfp4Operand, ProductsUnderAScalePerRowMeetTheOracle) {
  test::TestContext context;
  Rng rng(183);
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {} x {}", c.tokens, c.out, c.in));
    test::TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, c.out, c.in);
    const TestTensor x = TestTensor::normal(rng, {c.tokens, c.in});
    TestTensor rounded({c.tokens, c.in});
    nvfp4_fake_rows(context.cx, x.view, rounded.view);
    const auto expected = oracle::linear(rounded.doubles(), w.decoded, static_cast<size_t>(c.in), w.factors());
    std::vector<float> ws2;
    for (int64_t t = 0; t < c.tokens; ++t) {
      float amax = 0;
      for (int64_t k = 0; k < c.in; ++k) amax = std::max(amax, std::abs(x.view.f32()[t * c.in + k]));
      ws2.push_back(nvfp4_tensor_scale(amax).ws2);
    }
    const auto sums = products(pack_inputs(x, ws2), pack_weight(w.linear), c.tokens, c.out);
    for (size_t i = 0; i < sums.size(); ++i) {
      const auto row = static_cast<int64_t>(i) / c.out;
      const double factor =
          static_cast<double>(ws2[static_cast<size_t>(row)]) * static_cast<double>(w.linear.tensor_scale);
      ASSERT_NEAR(sums[i] * factor, expected.y[i], 0x1p-23 * expected.magnitudes[i]) << i;
    }
  }
}

}  // namespace
}  // namespace nibble::ops
