// A sidecar gives back what the teacher gave, or says what it lacks.
#include "train/sidecar.h"

#include <gtest/gtest.h>

#include "tensor/numeric.h"
#include "tests/support/sidecar_test.h"

namespace nibble::train {
namespace {

TEST_F(SidecarTest, GivesTheRowsBackInAnyPacking) {
  for (const Numeric numeric : {Numeric::exact, Numeric::bf16_act}) {
    cx_.numeric = numeric;
    const SidecarHeader header = header_of(head_operand(numeric));
    const Path path = folder_ / name(numeric);
    ASSERT_TRUE(write(teacher_, long_, path, header).ok());
    auto sidecar = SidecarTeacher::open(path, header, head_);
    ASSERT_TRUE(sidecar.ok()) << sidecar.status().text();
    EXPECT_TRUE(sidecar->holds(pointers(long_), Objective::kl).ok());
    const std::vector<const Sample*> packed = {&long_[3], &long_[0], &long_[4], &long_[2]};
    const Batch batch = make_batch(packed, Objective::kl);
    const auto got = sidecar->hidden(cx_, batch), expected = teacher_.hidden(cx_, batch);
    ASSERT_TRUE(got.ok()) << got.status().text();
    for (int64_t t = 0; t < batch.tokens(); ++t) {
      if (batch.kl[static_cast<size_t>(t)] == 0) continue;
      for (int64_t i = t * kWidth; i < (t + 1) * kWidth; ++i) {
        const float wanted = expected->f32()[i];
        ASSERT_EQ(got->f32()[i], numeric == Numeric::exact ? wanted : round_to_bf16(wanted)) << t;
      }
    }
  }
}

TEST_F(SidecarTest, HoldsEachKeyOnceAndOnlyRowsWithAKlWeight) {
  std::vector<Sample> samples = make_some({9, 6, 13});
  samples.push_back(samples[0]);
  samples[1].objective = Objective::ce;
  ASSERT_TRUE(write(teacher_, samples, path_).ok());
  const auto file = SidecarFile::open(path_);
  ASSERT_TRUE(file.ok()) << file.status().text();
  EXPECT_EQ(file->samples(), 2);
  EXPECT_EQ(file->header().rows, samples[0].loss_rows() + samples[2].loss_rows());
  EXPECT_EQ(teacher_.calls, 2);
  EXPECT_EQ(entries(), 1u);  // neither part nor journal stays
  samples[0].objective = samples[2].objective = samples[3].objective = Objective::ce;
  EXPECT_EQ(write(teacher_, samples, folder_ / "none").code(), Code::invalid_argument);
}

TEST_F(SidecarTest, NamesWhatDoesNotFit) {
  ASSERT_TRUE(write(teacher_, short_, path_).ok());
  struct Case {
    void (*change)(SidecarHeader& wanted);
    const char* word;
  };
  const Case cases[] = {
      {[](SidecarHeader& h) { h.head = h.teacher = "other"; }, "a teacher whose head is other"},
      {[](SidecarHeader& h) { h.teacher = "other"; }, "teacher other, got those of teacher"},
      {[](SidecarHeader& h) { h.tokenizer = "other"; }, "tokenizer other, got those of tokenizer"},
      {[](SidecarHeader& h) { h.hidden = 4; }, "width 4"},
      {[](SidecarHeader& h) { h.dtype = DType::bf16; }, "dtype bf16, got those of f32"},
  };
  for (const Case& c : cases) {
    SidecarHeader wanted = header_of();
    c.change(wanted);
    const Status status = SidecarTeacher::open(path_, wanted, head_).status();
    EXPECT_EQ(status.code(), Code::invalid_argument);
    EXPECT_NE(status.message().find(c.word), std::string::npos) << status.text();
    EXPECT_FALSE(status.hint().empty());
  }
}

TEST_F(SidecarTest, NamesTheSampleThatIsMissing) {
  ASSERT_TRUE(write(teacher_, short_, path_).ok());
  SidecarHeader wanted = header_of();
  wanted.loss_kinds = "content";
  wanted.created = "2003-03-03T00:00:00Z";
  auto sidecar = SidecarTeacher::open(path_, wanted, head_);
  ASSERT_TRUE(sidecar.ok()) << sidecar.status().text();
  std::vector<Sample> samples = short_;
  samples[1].id = "abc";
  for (const bool ids : {true, false}) {  // else the mask
    Sample changed = samples[1];
    if (ids) changed.ids[2] += 1;
    if (!ids) changed.weight[1] = 0;
    changed.key = sample_key(changed.ids, changed.weight);
    const std::vector<const Sample*> list = {&samples[0], &changed};
    for (const Status& status :
         {sidecar->holds(list, Objective::kl), sidecar->hidden(cx_, make_batch(list, Objective::kl)).status()}) {
      EXPECT_EQ(status.code(), Code::invalid_argument);
      EXPECT_NE(status.message().find("line 2 (abc)"), std::string::npos) << status.text();
      EXPECT_NE(status.hint().find("the loss kinds changed"), std::string::npos) << status.text();
    }
    EXPECT_TRUE(sidecar->holds(list, Objective::ce).ok());  // nothing of the teacher is needed
  }
  samples[1].weight[1] = 2;  // a weight is not part of the mask
  EXPECT_EQ(sample_key(samples[1].ids, samples[1].weight), samples[1].key);
  EXPECT_TRUE(sidecar->holds(pointers(samples), Objective::kl).ok());
}

}  // namespace
}  // namespace nibble::train
