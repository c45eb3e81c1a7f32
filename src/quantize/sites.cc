#include "quantize/sites.h"

namespace nibble::quantize {
namespace {

SiteKind kind_of(std::string_view module) {
  for (std::string_view part : {"o_proj", "out_proj"}) {
    if (module.ends_with(part)) return SiteKind::mixer_out;
  }
  for (std::string_view part : {"gate_proj", "up_proj"}) {
    if (module.ends_with(part)) return SiteKind::mlp_in;
  }
  return module.ends_with("down_proj") ? SiteKind::mlp_out : SiteKind::mixer_in;
}

class Collector : public model::WeightsVisitor {
 public:
  void linear(const std::string& name, ops::Linear& linear, int64_t, int64_t) override {
    sites[static_cast<size_t>(kind_of(name))].push_back({name, &linear});
  }
  void tensor(const std::string&, Tensor&, const Shape&, model::TensorKind) override {}

  std::array<std::vector<Reader>, kSites> sites;
};

}  // namespace

std::array<std::vector<Reader>, kSites> sites_of(const model::Config& config, const std::string& prefix,
                                                 model::BlockWeights& block) {
  Collector collector;
  model::visit_block(config, prefix, block, collector);
  return std::move(collector.sites);
}

}  // namespace nibble::quantize
