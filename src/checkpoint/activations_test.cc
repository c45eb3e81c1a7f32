#include "checkpoint/activations.h"

#include <gtest/gtest.h>

#include "checkpoint/load.h"
#include "checkpoint/test_folder.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using ops::InputRounding;
using test::TemporaryFolder;
using testing::TestCheckpoint;

class Written {
 public:
  explicit Written(const TestCheckpoint& c) { c.write(folder_.path()); }
  LoadedModel load(Activations activations = Activations::as_stored) const {
    Result<LoadedModel> model = load_checkpoint(folder_.path());
    EXPECT_TRUE(model.ok()) << model.status().text();
    const Status status = set_activations(model->weights, activations);
    EXPECT_TRUE(status.ok()) << status.text();
    return std::move(model).value();
  }

 private:
  TemporaryFolder folder_;
};

TEST(Activations, AreAsTheCheckpointSaysOrAsOneSays) {
  const Written a4(TestCheckpoint::micro_nvfp4("NVFP4")), a16(TestCheckpoint::micro_nvfp4());
  EXPECT_EQ(activations_of(a4.load().weights), "a4");
  EXPECT_EQ(activations_of(a16.load().weights), "a16");
  EXPECT_EQ(activations_of(a4.load(Activations::a16).weights), "a16");
  EXPECT_EQ(activations_of(a4.load(Activations::a4).weights), "a4");
  for (const Written* any : {&a4, &a16}) {
    const LoadedModel token = any->load(Activations::a4_token);
    EXPECT_EQ(activations_of(token.weights), "a4-token");
    EXPECT_EQ(token.weights.blocks[0].gdn->in_proj_a.inputs, InputRounding::none);
  }
  // The weights are the same, so what is switched off is off.
  EXPECT_EQ(testing::logits(a4.load(Activations::a16)), testing::logits(a16.load()));
  EXPECT_NE(testing::logits(a4.load()), testing::logits(a16.load()));
  EXPECT_EQ(testing::logits(a4.load(Activations::a4_token)), testing::logits(a16.load(Activations::a4_token)));
}

TEST(Activations, NeedWhatTheyRoundWith) {
  const Written a16(TestCheckpoint::micro_nvfp4()), plain(TestCheckpoint::micro());
  LoadedModel model = a16.load();
  const Status no_scales = set_activations(model.weights, Activations::a4);
  EXPECT_EQ(no_scales.code(), Code::invalid_argument);
  EXPECT_NE(no_scales.hint().find("--act a4-token"), std::string::npos);
  LoadedModel dense = plain.load();
  EXPECT_EQ(set_activations(dense.weights, Activations::a4_token).code(), Code::invalid_argument);
  EXPECT_TRUE(set_activations(dense.weights, Activations::a16).ok());
}

TEST(Activations, HaveNames) {
  EXPECT_EQ(activations_named("a16"), Activations::a16);
  EXPECT_EQ(activations_named("a4"), Activations::a4);
  EXPECT_EQ(activations_named("a4-token"), Activations::a4_token);
  EXPECT_FALSE(activations_named("a8").has_value());
}

}  // namespace
}  // namespace nibble::checkpoint
