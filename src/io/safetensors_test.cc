#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "base/rng.h"
#include "io/safetensors_header.h"
#include "io/safetensors_writer.h"

namespace nibble {
namespace {

/// A fresh folder under the system's temporary one, removed at the end.
class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("nibble-safetensors-{}-{}", info->name(), static_cast<long>(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Path folder_;
};

/// A file with this header and `data` zero bytes.
std::string file_bytes(std::string_view header, size_t data, uint64_t length = UINT64_MAX) {
  if (length == UINT64_MAX) length = header.size();
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>((length >> (8 * i)) & 0xFF);
  out += header;
  out.append(data, '\0');
  return out;
}

Result<SafetensorsHeader> parse(std::string_view bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.safetensors");
}

std::vector<float> ramp(int64_t n, float start) {
  std::vector<float> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(start + static_cast<float>(i));
  return v;
}

TEST_F(SafetensorsTest, ReadsAFileOfAnotherWriter) {
  Result<Safetensors> file = Safetensors::open(NIBBLE_SOURCE_DIR "/tests/golden/micro/model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().text();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->tensors().front().name, "lm_head.weight");
  const TensorInfo* conv = file->find("model.layers.0.linear_attn.conv1d.weight");
  ASSERT_NE(conv, nullptr);
  EXPECT_EQ(conv->text(), "[192,1,4] F32");
  Result<Tensor> t = file->tensor(*conv);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->shape(), (Shape{192, 1, 4}));
  EXPECT_TRUE(is_aligned(*t));
  EXPECT_EQ(static_cast<const void*>(file->bytes(*conv).data()), t->raw());
  EXPECT_EQ(file->find("nope"), nullptr);
  file->drop(*conv);
  EXPECT_EQ(file->find("model.layers.0.linear_attn.conv1d.weight"), conv);
}

TEST_F(SafetensorsTest, WriteThenReadIsTheIdentity) {
  const Path path = folder_ / "out.safetensors";
  std::vector<float> a = ramp(12, 1), b = ramp(5, 100);
  std::vector<uint8_t> codes = {1, 2, 3};
  {
    std::vector<TensorDeclaration> declared;
    declared.emplace_back("empty", DType::f32, Shape{0, 7});
    declared.emplace_back("a \"quoted\" name", DType::f32, Shape{3, 4});
    declared.emplace_back("codes", DType::u8, Shape{1, 3});
    declared.emplace_back("b", DType::f32, Shape{5});
    declared.emplace_back("scalar", DType::f32, Shape{});
    Result<SafetensorsWriter> writer = SafetensorsWriter::create(path, declared, {{"format", "pt"}, {"by", "nibble"}});
    ASSERT_TRUE(writer.ok()) << writer.status().text();
    // In two pieces: half of the bytes each.
    const auto bytes = std::as_bytes(std::span(a));
    ASSERT_TRUE(writer->append("a \"quoted\" name", bytes.first(20)).ok());
    ASSERT_TRUE(writer->append("a \"quoted\" name", bytes.subspan(20)).ok());
    ASSERT_TRUE(writer->append("codes", Tensor::constant(codes.data(), DType::u8, {1, 3})).ok());
    ASSERT_TRUE(writer->append("b", Tensor::constant(b.data(), DType::f32, {5})).ok());
    ASSERT_TRUE(writer->append("scalar", Tensor::constant(b.data(), DType::f32, {})).ok());
    EXPECT_FALSE(std::filesystem::exists(path));
    ASSERT_TRUE(writer->commit().ok());
  }
  Result<Safetensors> file = Safetensors::open(path);
  ASSERT_TRUE(file.ok()) << file.status().text();
  EXPECT_EQ(file->metadata().size(), 2u);
  ASSERT_EQ(file->tensors().size(), 5u);
  EXPECT_EQ(file->tensors()[0].name, "empty");
  EXPECT_EQ(file->header().size() % 8, 0u);
  const TensorInfo* info = file->find("a \"quoted\" name");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(std::memcmp(file->bytes(*info).data(), a.data(), 48), 0);
  const TensorInfo* misaligned = file->find("b");
  EXPECT_EQ(std::memcmp(file->bytes(*misaligned).data(), b.data(), 20), 0);
  EXPECT_FALSE(is_aligned(*file->tensor(*misaligned)));
  EXPECT_EQ(file->tensor(*file->find("scalar"))->rank(), 0);
  EXPECT_EQ(file->tensor(*file->find("empty"))->elements(), 0);
}

TEST_F(SafetensorsTest, AnUncommittedFileLeavesNothing) {
  {
    Result<SafetensorsWriter> writer =
        SafetensorsWriter::create(folder_ / "out.safetensors", {{"a", DType::u8, Shape{4}}});
    ASSERT_TRUE(writer.ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  const Result<SafetensorsWriter> twice =
      SafetensorsWriter::create(folder_ / "out.safetensors", {{"a", DType::u8, Shape{4}}, {"a", DType::u8, Shape{4}}});
  EXPECT_EQ(twice.status().code(), Code::invalid_argument);
}

TEST_F(SafetensorsTest, ShardsAreCutAtTheLimitAndReadBack) {
  std::vector<TensorDeclaration> declared;
  for (int i = 0; i < 6; ++i) declared.emplace_back(fmt::format("t{}", i), DType::f32, Shape{i == 4 ? 100 : 10});
  Result<ShardedSafetensorsWriter> writer =
      ShardedSafetensorsWriter::create(folder_, declared, {{"format", "pt"}}, 100);
  ASSERT_TRUE(writer.ok());
  for (int i = 0; i < 6; ++i) {
    const std::vector<float> v = ramp(i == 4 ? 100 : 10, static_cast<float>(i));
    ASSERT_TRUE(writer->append(fmt::format("t{}", i), std::as_bytes(std::span(v))).ok());
  }
  ASSERT_TRUE(writer->commit().ok());
  EXPECT_EQ(writer->total_bytes(), 600u);

  Result<SafetensorsFolder> folder = SafetensorsFolder::open(folder_);
  ASSERT_TRUE(folder.ok()) << folder.status().text();
  ASSERT_EQ(folder->files().size(), 4u);  // t0 t1 | t2 t3 | t4, too large for any | t5
  ASSERT_EQ(folder->tensors().size(), 6u);
  for (int i = 0; i < 6; ++i) {
    const SafetensorsFolder::Entry* entry = folder->find(fmt::format("t{}", i));
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->file->tensor(*entry->info)->f32()[3], static_cast<float>(i) + 3);
  }

  // Without the index the numbered set is complete by itself; without a shard it is not.
  std::filesystem::remove(folder_ / "model.safetensors.index.json");
  EXPECT_EQ(SafetensorsFolder::open(folder_)->tensors().size(), 6u);
  std::filesystem::remove(folder_ / "model-00003-of-00004.safetensors");
  const Status missing = SafetensorsFolder::open(folder_).status();
  EXPECT_EQ(missing.code(), Code::corrupt);
  EXPECT_NE(missing.message().find("shard missing: expected model-00003-of-00004.safetensors"), std::string::npos);
}

TEST_F(SafetensorsTest, ReadsTheBundledModelsShards) {
  Result<SafetensorsFolder> folder = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/models/tiny-voice");
  ASSERT_TRUE(folder.ok()) << folder.status().text();
  EXPECT_EQ(folder->files().size(), 2u);
  EXPECT_EQ(folder->tensors().size(), 109u);
  uint64_t bytes = 0;
  for (const auto& entry : folder->tensors()) bytes += entry.info->bytes;
  EXPECT_EQ(bytes, 16826416u);
}

TEST_F(SafetensorsTest, RefusesBrokenHeaders) {
  const std::string one = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const std::pair<std::string, const char*> cases[] = {
      {"", "expected a header, got a file of 0 bytes"},
      {file_bytes("{" + one + "}", 8, 100'000'001), "expected a header of at most 100000000 bytes, got 100000001"},
      {file_bytes("{" + one + "}", 8, 5000), "expected a header of 5000 bytes, got a file of"},
      {file_bytes(" {" + one + "}", 8), "expected a header that starts with '{'"},
      {file_bytes("{" + one + "} x", 8), "invalid JSON"},
      {file_bytes("{" + one, 8), "invalid JSON"},
      {file_bytes("{\"\xff\":{}}", 0), "invalid JSON"},
      {file_bytes("{" + one + "," + one + "}", 8), "duplicate key \"a\""},
      {file_bytes("{" + one + "}", 7), "data section: expected 8 bytes, got 7"},
      {file_bytes("{" + one + "}", 9), "data section: expected 8 bytes, got 9"},
      {file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})", 9), "begins at byte 0, got 1"},
      {file_bytes("{" + one + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8),
       "b: expected data that begins at byte 8, got 4"},
      {file_bytes("{" + one + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[9,13]}})", 13),
       "b: expected data that begins at byte 8, got 9"},
      {file_bytes(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "a: [3] F32 with 8 bytes"},
      {file_bytes(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", 4), "with 4 bytes"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0), "with 0 bytes"},
      {file_bytes(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1), "with 1 bytes"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1), "8 dimensions"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), "a negative number"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1), "a fraction"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1), "dimension"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1), "data_offsets [1,0]"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1), "more than two data_offsets"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1), "missing"},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[1]}})", 1), "missing"},
      {file_bytes(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]}})", 1), "dtype \"F99\""},
      {file_bytes(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", 1), "a number"},
      {file_bytes(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), "duplicate key"},
      {file_bytes(R"({"a":{"dtype":"U8","more":1,"shape":[1],"data_offsets":[0,1]}})", 1), "unknown key \"more\""},
      {file_bytes(R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1), "an array"},
      {file_bytes(R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1), "an object"},
      {file_bytes(R"({"a":[]})", 0), "an array"},
      {file_bytes(R"({"__metadata__":{"a":1}})", 0), "a number"},
      {file_bytes(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "duplicate key \"a\" in __metadata__"},
      {file_bytes(R"({"__metadata__":{"a":{}}})", 0), "an object"},
      {file_bytes("{\"a\":" + std::string(100'000, '['), 0), "an array"},
  };
  for (const auto& [bytes, message] : cases) {
    const Result<SafetensorsHeader> header = parse(bytes);
    ASSERT_FALSE(header.ok()) << message;
    EXPECT_EQ(header.status().code(), Code::corrupt);
    EXPECT_NE(header.status().message().find(message), std::string::npos) << header.status().text();
  }
}

TEST_F(SafetensorsTest, CarriesTypesItDoesNotComputeWith) {
  const std::string bytes = file_bytes(
      R"({"i":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"f":{"dtype":"F4","shape":[4],"data_offsets":[16,18]}})",
      18);
  ASSERT_TRUE(write_file(folder_ / "x.safetensors", bytes).ok());
  Result<Safetensors> file = Safetensors::open(folder_ / "x.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().text();
  const TensorInfo* info = file->find("i");
  ASSERT_NE(info, nullptr);
  EXPECT_FALSE(info->type);
  EXPECT_EQ(file->bytes(*info).size(), 16u);
  const Result<Tensor> t = file->tensor(*info);
  EXPECT_EQ(t.status().code(), Code::unsupported);
  EXPECT_NE(t.status().message().find("i: expected F32"), std::string::npos);

  Result<SafetensorsWriter> copy = SafetensorsWriter::create(
      folder_ / "y.safetensors", {TensorDeclaration(file->tensors()[0]), TensorDeclaration(file->tensors()[1])});
  for (const TensorInfo& t2 : file->tensors()) ASSERT_TRUE(copy->append(t2.name, file->bytes(t2)).ok());
  ASSERT_TRUE(copy->commit().ok());
  EXPECT_EQ(Safetensors::open(folder_ / "y.safetensors")->find("i")->dtype, "I64");
}

TEST_F(SafetensorsTest, RefusesBrokenFolders) {
  const std::string shard = file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  const auto index = [&](std::string_view text) {
    ASSERT_TRUE(write_file(folder_ / "model.safetensors.index.json", text).ok());
  };
  const auto expect = [&](Code code, std::string_view message) {
    const Result<SafetensorsFolder> folder = SafetensorsFolder::open(folder_);
    ASSERT_FALSE(folder.ok()) << message;
    EXPECT_EQ(folder.status().code(), code);
    EXPECT_NE(folder.status().message().find(message), std::string::npos) << folder.status().text();
    EXPECT_FALSE(folder.status().hint().empty() && code == Code::not_found);
  };
  expect(Code::not_found, "expected model.safetensors or model.safetensors.index.json, got neither");
  ASSERT_TRUE(write_file(folder_ / "weights.bin", "x").ok());
  expect(Code::not_found, "got neither");
  ASSERT_TRUE(write_file(folder_ / "one.safetensors", shard).ok());
  EXPECT_TRUE(SafetensorsFolder::open(folder_).ok());
  ASSERT_TRUE(write_file(folder_ / "two.safetensors", shard).ok());
  expect(Code::corrupt, "expected model.safetensors.index.json beside 2 safetensors files");

  index(R"({"weight_map":{"a":"../one.safetensors"}})");
  expect(Code::corrupt, "a: expected a file name inside the folder, got \"../one.safetensors\"");
  index(R"({"weight_map":{"a":"/etc/passwd"}})");
  expect(Code::corrupt, "expected a file name inside the folder");
  index(R"({"weight_map":{"a":".."}})");
  expect(Code::corrupt, "expected a file name inside the folder");
  index(R"({"weight_map":{"a":""}})");
  expect(Code::corrupt, "expected a file name inside the folder");
  index(R"({"weight_map":{"a":"three.safetensors"}})");
  expect(Code::corrupt, "shard missing: expected three.safetensors");
  index(R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  expect(Code::corrupt, "b: expected in one.safetensors as the index says");
  index(R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})");
  expect(Code::corrupt, "a: expected in one file, got it in one.safetensors and two.safetensors");
  index(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})");
  expect(Code::corrupt, "duplicate key \"a\"");
  index(R"({"weight_map":{"a":1}})");
  expect(Code::corrupt, "a file name that is no string");
  index(R"({"weight_map":{}})");
  expect(Code::corrupt, "expected a weight_map with tensors, got none");
  index(R"({"metadata":{"weight_map":{"a":"one.safetensors"}}})");
  expect(Code::corrupt, "expected a weight_map with tensors, got none");
  index(R"([])");
  expect(Code::corrupt, "an array where an object belongs");
  index(R"(7)");
  expect(Code::corrupt, "no object");
  index("{\"metadata\":" + std::string(50'000, '[') + "}");
  expect(Code::corrupt, "levels of nesting");
  index(R"({"metadata":{"total_size":1,"x":[1,{"y":null}]},"weight_map":{"a":"one.safetensors"},"z":"s"})");
  EXPECT_TRUE(SafetensorsFolder::open(folder_).ok()) << SafetensorsFolder::open(folder_).status().text();
}

/// Changes, inserts, removes and repeats bytes; digits and brackets more often than others.
std::string mutate(std::string bytes, Rng& rng) {
  constexpr std::string_view kLikely = "{}[]\",:0123456789-.eE\\ ";
  for (uint32_t n = 1 + rng.below(4); n > 0 && !bytes.empty(); --n) {
    const size_t at = rng.below(static_cast<uint32_t>(bytes.size()));
    const char c = rng.below(3) == 0 ? static_cast<char>(rng.below(256))
                                     : kLikely[rng.below(static_cast<uint32_t>(kLikely.size()))];
    switch (rng.below(5)) {
      case 0:
        bytes.insert(at, 1, c);
        break;
      case 1:
        bytes.erase(at, 1 + rng.below(8));
        break;
      case 2:
        bytes.insert(at, bytes.substr(at, 1 + rng.below(40)));
        break;
      default:
        bytes[at] = c;
    }
  }
  return bytes;
}

// Whatever the bytes are, the answer is a Status or ranges that tile the data section.
TEST_F(SafetensorsTest, SurvivesMutatedHeaders) {
  const std::string original = file_bytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[24,28]},"c":{"dtype":"I64","shape":[],"data_offsets":[28,36]}})",
      36);
  Rng rng(5);
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string bytes = mutate(original, rng);
    const Result<SafetensorsHeader> header = parse(bytes);
    if (!header.ok()) continue;
    ++accepted;
    uint64_t position = header->data_begin;
    for (const TensorInfo& t : header->tensors) position += t.bytes;
    ASSERT_EQ(position, bytes.size());
  }
  EXPECT_GT(accepted, 100);
}

TEST_F(SafetensorsTest, SurvivesMutatedIndexes) {
  const std::string shard = file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  ASSERT_TRUE(write_file(folder_ / "one.safetensors", shard).ok());
  const std::string original = R"({"metadata":{"total_size":1},"weight_map":{"a":"one.safetensors"}})";
  Rng rng(6);
  int accepted = 0;
  for (int round = 0; round < 2'000; ++round) {
    {
      // Plain writes: the atomic ones sync to the disk every time.
      std::FILE* file = std::fopen((folder_ / "model.safetensors.index.json").c_str(), "wb");
      ASSERT_NE(file, nullptr);
      const std::string bytes = mutate(original, rng);
      std::fwrite(bytes.data(), 1, bytes.size(), file);
      std::fclose(file);
    }
    accepted += SafetensorsFolder::open(folder_).ok();
  }
  EXPECT_GT(accepted, 10);
  EXPECT_LT(accepted, 1'900);
}

}  // namespace
}  // namespace nibble
