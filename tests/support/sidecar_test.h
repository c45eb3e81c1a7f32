// What tests of sidecars share: a teacher without a model, samples, and a folder to write into.
#pragma once

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"
#include "train/sidecar.h"

namespace nibble::train {

constexpr int64_t kWidth = 3;

// Rows that depend on id and position alone.
class FakeTeacher : public Teacher {
 public:
  FakeTeacher() { head_.in = kWidth; }
  Result<Tensor> hidden(Context& cx, const Batch& batch) override {
    if (cx.cancel.cancelled()) return cancelled("teacher");
    ++calls;
    const Tensor rows = cx.arena.f32({batch.tokens(), kWidth});
    for (size_t b = 0; b < batch.samples.size(); ++b) {
      for (int64_t t = batch.segments[b]; t < batch.segments[b + 1]; ++t) {
        for (int64_t j = 0; j < kWidth; ++j) {
          rows.f32()[t * kWidth + j] = value(batch.ids[static_cast<size_t>(t)], t - batch.segments[b], j);
        }
      }
    }
    if (calls == cancel_after) cx.cancel.cancel();
    return rows;
  }
  const ops::Linear& head() const override { return head_; }
  static float value(int32_t id, int64_t t, int64_t j) {
    return static_cast<float>(id) / 7 + static_cast<float>(t) * 1.001f + static_cast<float>(j) / 3;
  }

  int calls = 0, cancel_after = -1;

 private:
  ops::Linear head_;
};

inline std::vector<Sample> make_some(std::initializer_list<int64_t> lengths) {
  std::vector<Sample> samples;
  for (const int64_t T : lengths) {
    Sample s;
    s.line = static_cast<int64_t>(samples.size()) + 1;
    for (int64_t t = 0; t < T; ++t) {
      s.ids.push_back(static_cast<int32_t>((t * 31 + T) % 97));
      s.weight.push_back(t % 4 == 0 || t + 1 == T ? 0.0f : 0.5f);
    }
    s.key = sample_key(s.ids, s.weight);
    samples.push_back(std::move(s));
  }
  return samples;
}

inline std::vector<const Sample*> pointers(const std::vector<Sample>& samples) {
  std::vector<const Sample*> list;
  for (const Sample& s : samples) list.push_back(&s);
  return list;
}

inline SidecarHeader header_of(DType dtype = DType::f32) {
  SidecarHeader h;
  h.hidden = kWidth;
  h.dtype = dtype;
  h.teacher = "teacher";
  h.head = "head";
  h.tokenizer = "tokenizer";
  h.created = "2001-01-01T00:00:00Z";
  return h;
}

class SidecarTest : public testing::Test {
 protected:
  ~SidecarTest() override { inject_file_faults({}); }

  Status write(FakeTeacher& teacher, const std::vector<Sample>& samples, const Path& path,
               const SidecarHeader& header = header_of()) {
    return write_sidecar(cx_, teacher, pointers(samples), Objective::kl, header, path);
  }
  std::string written(const std::vector<Sample>& samples) {
    FakeTeacher teacher;
    EXPECT_TRUE(write(teacher, samples, folder_ / "reference").ok());
    std::string bytes = *read_file(folder_ / "reference");
    std::filesystem::remove(folder_ / "reference");
    return bytes;
  }
  // What opening and reading every row says.
  Status read_all(const Path& path) {
    NIBBLE_TRY(file, SidecarFile::open(path));
    std::vector<float> row(static_cast<size_t>(file.header().hidden));
    for (int64_t i = 0; i < file.header().rows; ++i) NIBBLE_RETURN_IF_ERROR(file.read(i, row.data()));
    return {};
  }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }

  test::TemporaryFolder folder_;
  Path path_ = folder_ / "teacher.hid";
  ThreadPool pool_{1};
  Context cx_{pool_};
  FakeTeacher teacher_;
  const ops::Linear& head_ = teacher_.head();
  const std::vector<Sample> long_ = make_some({900, 40, 1365, 700, 1});  // 2250 rows with a weight: three blocks
  const std::vector<Sample> short_ = make_some({9, 6, 13});
};

}  // namespace nibble::train
