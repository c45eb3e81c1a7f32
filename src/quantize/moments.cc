#include "quantize/moments.h"

#include "ops/quant/nvfp4.h"

namespace nibble::quantize {

void add_moment(Context& cx, const Tensor& x, const Tensor& y, const Tensor& h) {
  // x^T y is the gradient of a weight [K,M] whose outputs have gradient x and whose inputs are y.
  ops::Linear shape;
  shape.out = x.dim(1), shape.in = y.dim(1), shape.weight = h;
  Tensor none, sum = h;
  ops::linear_vjp(cx, x, y, shape, none, sum);
}

Moments::Moments(Context& cx, const std::array<std::vector<Reader>, kSites>& sites,
                 const std::array<bool, kSites>& wanted)
    : cx_(cx) {
  for (size_t i = 0; i < kSites; ++i) {
    if (!wanted[i] || sites[i].empty()) continue;
    const ops::Linear* first = sites[i].front().linear;
    sites_[i].wanted = true;
    sites_[i].hessian = OwnedTensor(DType::f32, {first->in, first->in});
    first_reader_[first] = &sites_[i];
  }
  tap_.linear_input = [this](const ops::Linear& linear, const Tensor& x) {
    const auto found = first_reader_.find(&linear);
    if (found != first_reader_.end()) add(*found->second, x);
  };
}

void Moments::add(Collected& site, const Tensor& x) {
  const Arena::Scope scope(cx_.arena);
  Tensor input = x;
  if (site.input_scale > 0) {
    input = cx_.arena.f32(x.shape());
    ops::nvfp4_fake(cx_, x, {site.input_scale, false}, input);
  }
  site.tokens += x.dim(0);
  add_moment(cx_, input, input, site.hessian.view);
}

const Tensor& Moments::finish(SiteKind kind) {
  Collected& site = collected(kind);
  NIBBLE_CHECK(site.wanted);
  if (site.tokens > 0) {
    const auto factor = static_cast<float>(2 / static_cast<double>(site.tokens));
    for (float& value : site.hessian.view.f32_span()) value *= factor;
  }
  return site.hessian.view;
}

}  // namespace nibble::quantize
