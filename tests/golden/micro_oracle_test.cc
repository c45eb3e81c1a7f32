// The f64 oracle of the whole model against torch, and our backward pass against the oracle: the loss and, by complex
// step through every rounding that is passed straight, slopes along the golden gradients and at random.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "tests/support/micro.h"
#include "tests/support/oracle/model.h"

namespace nibble::test {
namespace {

constexpr const char* kModes[] = {"f32", "w4a16", "w4a16_tied", "w4a4_tied"};

class MicroOracle : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

double norm_of(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

TEST_P(MicroOracle, LossAndSlopes) {
  const auto [folder, name] = GetParam();
  const std::string mode = name;
  checkpoint::LoadedModel loaded = load(kGolden / folder);
  const Golden golden(kGolden / folder / fmt::format("golden.{}.safetensors", mode));
  const model::Config& c = loaded.weights.config;
  const oracle::LabelledBatch batch{golden.ids("input_ids"), golden.ids("labels"), 75};
  oracle::FakeQuant quant{mode != "f32", mode.ends_with("tied"), {}};
  if (mode == "w4a4_tied") {
    golden.for_each_input_amax([&](const std::string& module, float value) { quant.input_amax[module] = value; });
  }

  const oracle::Parameters<double> parameters = oracle::parameters_of(loaded.weights);
  oracle::Model<double> model(c, loaded.weights.prefix, parameters, quant);
  EXPECT_NEAR(oracle::cross_entropy(model, batch), *golden["loss"].f32(), 1e-5);

  ThreadPool pool(2);
  Context cx(pool);
  auto student = train::Student::create(cx, kGolden / folder, load(kGolden / folder), micro_options(mode, golden));
  ASSERT_TRUE(student.ok()) << student.status().text();
  train::LossPass pass(**student, nullptr, {});
  train::Totals totals;
  const train::Batch step = micro_batch(golden);
  totals.add(step);
  ASSERT_TRUE(pass.gradients(cx, step, totals).ok());
  std::map<std::string, std::span<const float>> ours;
  for (const train::TrainedTensor& tensor : (*student)->trained()) ours[tensor.name] = tensor.parameter.grad.f32_span();

  // The tensors of a layer move together, each along its gradient and at random, weighted so that each is to add about
  // 1 to the slope: one forward per layer, and one wrong tensor shows.
  struct Layer {
    std::map<std::string, std::vector<double>> directions;
    double golden = 0, ours = 0;
  };
  std::map<std::string, Layer> layers;
  oracle::Parameters<Complex> lifted;
  Rng rng(11);
  for (const auto& [parameter, x] : parameters) {
    const Tensor gradient = golden["grad." + parameter];
    const std::vector<double> g(gradient.f32_span().begin(), gradient.f32_span().end());
    ASSERT_EQ(g.size(), x.size()) << parameter;
    std::vector<double> u(x.size());
    for (double& v : u) v = static_cast<double>(rng.normal());
    const double size = norm_of(g), random_size = norm_of(u);
    const size_t at = parameter.find("layers.");
    Layer& layer = layers[at == std::string::npos ? "others" : parameter.substr(at, 8)];
    for (size_t i = 0; i < u.size(); ++i) {
      u[i] = (g[i] / size + u[i] / random_size) / size;
      layer.golden += u[i] * g[i];
      layer.ours += u[i] * ours.at(parameter)[i];
    }
    layer.directions[parameter] = std::move(u);
    lifted[parameter] = with_tangent(x);
  }
  for (const auto& [layer_name, layer] : layers) {
    for (const auto& [parameter, u] : layer.directions) lifted[parameter] = with_tangent(parameters.at(parameter), u);
    oracle::Model<Complex> complex(c, loaded.weights.prefix, lifted, quant);
    const double slope = oracle::cross_entropy(complex, batch).imag() / kStep;
    const auto tensors = static_cast<double>(layer.directions.size());
    EXPECT_NEAR(slope, layer.golden, 5e-4 * tensors) << layer_name;
    EXPECT_NEAR(slope, layer.ours, 1e-4 * tensors) << layer_name;
    for (const auto& [parameter, u] : layer.directions) lifted[parameter] = with_tangent(parameters.at(parameter));
  }
}

INSTANTIATE_TEST_SUITE_P(AllModes, MicroOracle,
                         testing::Combine(testing::Values("micro", "micro_tied"), testing::ValuesIn(kModes)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });

}  // namespace
}  // namespace nibble::test
