// SignRound (Cheng et al., arXiv:2309.05516): the rounding of a layer's weights and the scales of their blocks are
// trained together, by signed gradient descent, until the layer's output comes near that of the unquantized model.
// What is trained is an offset V per weight, in units of the block's step, and a factor m per block of 16:
//
//   s = e4m3(clamp(m s0, 2^-9, 448))    d = fl(s ws2)
//   q = e2m1(fl(w / d) + V)             w' = q d              V in [-.5,.5], m in [.5,1.5]
//
// e2m1 saturates at +-6. Both casts pass gradients straight through, so with g = dL/dw' and x = w/d + V
//
//   dL/dV = g d                                               where |x| <= 6, else 0
//   dL/dm = sum_16 g (q - (w/d) [|x| <= 6]) s0 ws2            where 2^-9 <= m s0 <= 448, else 0
//
// and after every batch V -= r sign(dL/dV), m -= r c sign(dL/dm), with a rate r that falls linearly and g = dL/dw' of
// this batch + momentum * g of the batch before. The forward pass multiplies by the codes and scale bytes themselves:
// what is trained is what is stored.
//
// Source of the method: github.com/intel/auto-round, algorithms/quantization/sign_round and data_type/nvfp.py.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "quantize/gptq.h"
#include "quantize/layer_runner.h"
#include "quantize/sites.h"
#include "quantize/solution.h"

namespace nibble::quantize {

struct SignroundOptions {
  int iterations = 200;
  float rate = 0;                       // of the first step; 0: 1 / iterations
  float scale_rate = 1;                 // of the factors m, in units of the rate
  float momentum = 0;                   // what a step's gradient keeps of the one before
  int64_t tokens = 2048;                // of a step, rounded up to whole conversations
  int evaluate_every = 20;              // steps
  int64_t evaluation_tokens = 1 << 14;  // about; spread evenly over the calibration set
  uint64_t seed = 0;                    // of the order of conversations
};

/// The gradients of one block of 16: dv[i], and dm as the result. q: the values that the codes stand for; unit: s0 ws2,
/// or 0 where m s0 is outside what a scale can be; g: the gradient of w'.
float signround_gradient(const float* w, const float* v, const float* q, float step, float unit, const float* g,
                         float* dv);

/// One NVFP4 linear with V = 0 and m = 1 around the codes it has.
class SignroundLinear {
 public:
  /// `codes` and its scales are written by every step. `start` [N,K] f32: the weights w; rounded to nearest under the
  /// scales of `codes` they give its codes. Blocks that are all zero stay so.
  SignroundLinear(const ops::Linear& codes, OwnedTensor start);

  const ops::Linear& linear() const { return linear_; }
  /// [N,K] f32, to which the backward pass adds dL/dw'.
  const Tensor& gradient() const { return gradient_.view; }

  struct Rates {
    float offset = 0, scale = 0;  // by which V and m move
    float momentum = 0;           // what remains of the gradient afterwards
  };
  void step(Context& cx, const Rates& rates);
  /// Remembers codes and scales, or goes back to those remembered. V and m go on.
  void keep();
  void restore() const;

 private:
  void step_row(int64_t row, const Rates& rates);

  ops::Linear linear_;
  OwnedTensor w_, v_, m_, gradient_;
  std::vector<uint8_t> first_scales_, kept_codes_, kept_scales_;
};

/// What V moves around in one linear.
struct SignroundStart {
  std::string module;
  OwnedTensor weights;  // [N,K] f32
};

/// Start weights for the NVFP4 linears among solution.linears[first, end), which are those of `readers`, rounded to
/// nearest. With a hessian [K,K] (moments.h) GPTQ rounds them anew under the scales they have, and the start are the
/// weights as its compensation leaves them; without, the weights of the readers. Linears with a low-rank branch
/// and those that are stored as zero have none: they stay as they are.
void signround_start(Context& cx, std::span<const Reader> readers, const Tensor& hessian, const GptqOptions& options,
                     size_t first, LayerSolution& solution, std::vector<SignroundStart>& starts);

struct SignroundReport {
  /// Mean squared error of the layer's output at the start and of what was kept, and the steps that led to it: 0 where
  /// no step was better than the start.
  double first_loss = 0, loss = 0;
  int iteration = 0;
};

/// Trains the linears of one layer that have a start. `in`: what the layer reads, from quantized predecessors;
/// `reference`: what the unquantized one gives. `unquantized`: the layer's weights that the solution stands for.
/// `block`: the same with the linears of `solution` in it. Codes, scales and statistics of `solution`, and so `block`,
/// become those of the iterate with the smallest loss over the evaluation part, the start among them. `cancelled`
/// through cx.cancel. Results do not depend on the number of threads.
Result<SignroundReport> signround(Context& cx, const model::Config& config, int layer, const std::string& prefix,
                                  std::span<const Batch> batches, const HiddenStates& in, const HiddenStates& reference,
                                  const model::BlockWeights& unquantized, const model::BlockWeights& block,
                                  std::vector<SignroundStart> starts, const SignroundOptions& options,
                                  LayerSolution& solution);

}  // namespace nibble::quantize
