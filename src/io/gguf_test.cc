#include "io/gguf.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>

#include "base/rng.h"
#include "io/gguf_writer.h"
#include "tests/support/temporary_folder.h"

namespace nibble {
namespace {

using test::TemporaryFolder;

/// The bytes of a header, put together by hand so that it can lie.
class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof raw);
    text.append(raw, sizeof raw);
    return *this;
  }
  Bytes& u32(uint32_t value) { return put(value); }
  Bytes& u64(uint64_t value) { return put(value); }
  Bytes& string(std::string_view value) {
    u64(value.size());
    text += value;
    return *this;
  }
  Bytes& start(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
    text += "GGUF";
    return u32(version).u64(tensors).u64(pairs);
  }
  Bytes& tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    string(name).u32(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  Bytes& data(size_t bytes) {
    text.append((32 - text.size() % 32) % 32 + bytes, '\0');
    return *this;
  }

  std::string text;
};

Result<GgufHeader> parse(std::string_view bytes) {
  return parse_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf");
}

TEST(Gguf, WriteThenReadIsTheIdentity) {
  const TemporaryFolder folder;
  const Path path = folder / "a.gguf";
  GgufMetadata metadata;
  metadata.add("general.architecture", "qwen35");
  metadata.add("n", uint32_t{7});
  metadata.add("eps", 1e-6f);
  metadata.add("yes", true);
  metadata.add("sections", std::vector<int32_t>{11, -11, 10, 0});
  metadata.add("tokens", std::vector<std::string>{"a", "", "Ġb"});
  metadata.add("raw", std::as_bytes(std::span("\x01\x02\xFF", 3)));
  const std::vector<float> f = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> q(34, 9);
  auto writer =
      GgufWriter::create(path, metadata, {{"f", GgmlType::f32, {2, 3}}, {"q.weight", GgmlType::q8_0, {1, 32}}});
  ASSERT_TRUE(writer.ok()) << writer.status().text();
  const auto bytes = std::as_bytes(std::span(f));
  ASSERT_TRUE(writer->append("f", bytes.first(5)).ok());
  ASSERT_TRUE(writer->append("f", bytes.subspan(5)).ok());
  ASSERT_TRUE(writer->append("q.weight", std::as_bytes(std::span(q))).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(writer->commit().ok());

  auto opened = Gguf::open(path);
  ASSERT_TRUE(opened.ok()) << opened.status().text();
  const Gguf& file = *opened;
  EXPECT_TRUE(is_gguf(path));
  EXPECT_FALSE(is_gguf(folder.path()));
  EXPECT_EQ(**file.string("general.architecture"), "qwen35");
  EXPECT_EQ(**file.integer("n"), 7);
  EXPECT_EQ(static_cast<float>(**file.number("eps")), 1e-6f);
  EXPECT_EQ(**file.boolean("yes"), true);
  const GgufArray& sections = **file.integers("sections");
  EXPECT_EQ(sections.count, 4u);
  EXPECT_EQ(sections.integer(1), -11);
  EXPECT_EQ((**file.strings("tokens")).strings, (std::vector<std::string_view>{"a", "", "Ġb"}));
  EXPECT_EQ((**file.bytes("raw")).bytes[2], std::byte{0xFF});
  EXPECT_EQ(*file.integer("none"), std::nullopt);
  EXPECT_EQ(*file.strings("none"), nullptr);
  EXPECT_EQ(file.integer("eps").status().code(), Code::corrupt);
  EXPECT_EQ(file.strings("sections").status().code(), Code::corrupt);
  ASSERT_EQ(file.tensors().size(), 2u);
  const GgufTensor* tensor = file.find("f");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->text(), "[2,3] F32");
  EXPECT_EQ(std::memcmp(file.bytes(*tensor).data(), f.data(), 24), 0);
  const GgufTensor* blocks = file.find("q.weight");
  EXPECT_EQ(blocks->offset % kGgufAlignment, 0u);
  EXPECT_EQ(std::memcmp(file.bytes(*blocks).data(), q.data(), 34), 0);
  EXPECT_EQ(file.find("g"), nullptr);
}

TEST(Gguf, WriterRefusesNamesThatReadersDo) {
  const TemporaryFolder folder;
  const auto create = [&](std::vector<GgufDeclaration> tensors) {
    return GgufWriter::create(folder / "a.gguf", {}, std::move(tensors)).status().code();
  };
  EXPECT_EQ(create({{"a", GgmlType::f32, {1}}, {"a", GgmlType::f32, {1}}}), Code::invalid_argument);
  EXPECT_EQ(create({{std::string(64, 'a'), GgmlType::f32, {1}}}), Code::invalid_argument);
  EXPECT_EQ(create({{std::string(63, 'a'), GgmlType::f32, {1}}}), Code::ok);
}

TEST(Gguf, RefusesLyingHeaders) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  const auto pair = [](uint32_t type) { return Bytes().start(0, 1).string("k").u32(type); };
  const auto one = [](std::vector<uint64_t> dims, uint32_t type, uint64_t offset, size_t data) {
    return Bytes().start(1, 0).tensor("t", std::move(dims), type, offset).data(data).text;
  };
  struct Case {
    std::string bytes;
    Code code;
    std::string_view message;
  };
  const std::vector<Case> cases = {
      {"", Code::corrupt, "expected \"GGUF\""},
      {"GGU", Code::corrupt, "expected \"GGUF\""},
      {"GGML....", Code::corrupt, "expected \"GGUF\""},
      {"GGUF", Code::corrupt, "header: expected more bytes"},
      {Bytes().start(0, 0, 2).text, Code::unsupported, "version 3, got 2"},
      {Bytes().start(0, 0, 0x03000000).text, Code::unsupported, "big-endian"},
      {Bytes().start(kHuge, 0).text, Code::corrupt, "at most 100000 tensors"},
      {Bytes().start(0, kHuge).text, Code::corrupt, "at most 100000 tensors"},
      {Bytes().start(0, 65'537).text, Code::corrupt, "at most 100000 tensors"},
      {Bytes().start(1, 0).text, Code::corrupt, "tensor table: expected more bytes"},
      {Bytes().start(0, 1).u64(kHuge).text, Code::corrupt, "metadata: expected a string inside the file"},
      {Bytes().start(0, 1).string("").text, Code::corrupt, "a key of 1 to"},
      {Bytes().start(0, 1).string(std::string(65'536, 'k')).text, Code::corrupt, "a key of 1 to"},
      {pair(13).u64(0).text, Code::corrupt, "k: expected a value of type 0 to 12, got type 13"},
      {pair(4).text, Code::corrupt, "k: expected more bytes"},
      {pair(8).u64(1).text, Code::corrupt, "k: expected a string inside the file, got one of 1 bytes"},
      {pair(9).u32(9).u64(1).text, Code::corrupt, "k: expected an array of numbers or strings, got type 9"},
      {pair(9).u32(8).u64(kHuge).text, Code::corrupt, "k: expected an array inside the file"},
      {pair(9).u32(8).u64(uint64_t{1} << 61).text, Code::corrupt, "k: expected an array inside the file"},
      {pair(9).u32(10).u64((uint64_t{1} << 61) + 1).text, Code::corrupt, "k: expected an array inside the file"},
      {Bytes().start(0, 2).string("k").u32(7).put('\1').string("k").u32(7).put('\1').text, Code::corrupt,
       "k: expected each key once"},
      {Bytes().start(0, 2).string("k\n").u32(7).put('\1').string("k\n").u32(7).put('\1').text, Code::corrupt,
       "k?: expected each key once"},
      {Bytes().start(0, 1).string("general.alignment").u32(4).u32(0).text, Code::corrupt, "a power of two"},
      {Bytes().start(0, 1).string("general.alignment").u32(4).u32(48).text, Code::corrupt, "a power of two"},
      {Bytes().start(0, 1).string("general.alignment").u32(4).u32(1u << 31).text, Code::corrupt, "a power of two"},
      {Bytes().start(0, 1).string("general.alignment").u32(8).string("32").text, Code::corrupt, "a power of two"},
      {Bytes().start(1, 0).string("").text, Code::corrupt, "a name of 1 to 63 bytes, got 0"},
      {Bytes().start(1, 0).string(std::string(64, 't')).text, Code::corrupt, "a name of 1 to 63 bytes, got 64"},
      {one({}, 0, 0, 0), Code::corrupt, "t: expected 1 to 4 dimensions, got 0"},
      {Bytes().start(1, 0).string("t").u32(5).text, Code::corrupt, "t: expected 1 to 4 dimensions, got 5"},
      {Bytes().start(1, 0).string("t").u32(0xFFFFFFFF).text, Code::corrupt, "t: expected 1 to 4 dimensions"},
      {one({0}, 0, 0, 0), Code::corrupt, "t: expected dimensions of a tensor that fits into memory, got 0"},
      {one({kHuge}, 0, 0, 0), Code::corrupt, "got -1"},
      {one({uint64_t{1} << 62}, 0, 0, 0), Code::corrupt, "fits into memory"},
      {one({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0, 0), Code::corrupt, "fits into memory"},
      {one({65'536, 65'536, 65'536, 65'536}, 0, 0, 0), Code::corrupt, "fits into memory"},
      {one({uint64_t{1} << 56}, 0, 0, 0), Code::corrupt, "t: expected more bytes, got the end of the file"},
      {one({1}, 10, 0, 32), Code::unsupported,
       "t: expected F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q5_K, Q6_K or NVFP4, got Q2_K"},
      {one({1}, 0xFFFFFFFF, 0, 32), Code::unsupported, "got type 4294967295"},
      {one({31}, 8, 0, 64), Code::corrupt, "t: expected rows of a multiple of 32 weights for Q8_0, got 31"},
      {one({128, 2}, 12, 0, 300), Code::corrupt, "rows of a multiple of 256 weights for Q4_K, got 128"},
      {one({1}, 0, 32, 64), Code::corrupt, "t: expected data that begins at byte 0, got 32"},
      {one({1}, 0, kHuge, 64), Code::corrupt, "t: expected data that begins at byte 0"},
      {one({1}, 0, 0, 3), Code::corrupt, "t: expected more bytes"},
      {Bytes().start(1, 0).tensor("t", {1}, 0, 0).text, Code::corrupt, "t: expected more bytes"},
      {Bytes().start(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).data(64).text, Code::corrupt,
       "t: expected each tensor once"},
      {Bytes().start(2, 0).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 0).data(64).text, Code::corrupt,
       "b: expected data that begins at byte 32, got 0"},
      {Bytes().start(2, 0).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 4).data(64).text, Code::corrupt,
       "b: expected data that begins at byte 32, got 4"},
  };
  for (const Case& c : cases) {
    const Result<GgufHeader> header = parse(c.bytes);
    ASSERT_FALSE(header.ok()) << c.message;
    EXPECT_EQ(header.status().code(), c.code) << header.status().text();
    EXPECT_NE(header.status().message().find(c.message), std::string::npos) << header.status().text();
    EXPECT_EQ(header.status().message().find('\n'), std::string::npos);
  }
  EXPECT_TRUE(parse(Bytes().start(0, 0).text).ok());
  EXPECT_TRUE(parse(one({1}, 0, 0, 4)).ok());
  EXPECT_TRUE(parse(Bytes().start(2, 0).tensor("a", {1}, 0, 0).tensor("b", {3, 1, 2, 1}, 0, 32).data(56).text).ok());
}

TEST(Gguf, RefusesPartsOfASplitFile) {
  const TemporaryFolder folder;
  const Path path = folder.write("part.gguf", Bytes().start(0, 1).string("split.count").u32(2).put(uint16_t{2}).text);
  const auto file = Gguf::open(path);
  EXPECT_EQ(file.status().code(), Code::unsupported);
  EXPECT_FALSE(file.status().hint().empty());
}

/// A file with values of every type and three tensors.
std::string sound_file() {
  const TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.add("general.architecture", "qwen35");
  metadata.add("n", uint32_t{7});
  metadata.add("eps", 1e-6f);
  metadata.add("flag", false);
  metadata.add("sections", std::vector<int32_t>{11, 11, 10, 0});
  metadata.add("tokens", std::vector<std::string>{"a", "bc", "def"});
  std::vector<GgufDeclaration> tensors = {
      {"a", GgmlType::f32, {2, 3}}, {"b", GgmlType::q8_0, {1, 32}}, {"c", GgmlType::nvfp4, {2, 64}}};
  auto writer = GgufWriter::create(folder / "a.gguf", metadata, tensors);
  for (const GgufDeclaration& t : tensors) {
    EXPECT_TRUE(writer->append(t.name, std::vector<std::byte>(t.bytes())).ok());
  }
  EXPECT_TRUE(writer->commit().ok());
  return *read_file(folder / "a.gguf");
}

/// Reads all that a sound header points at.
void touch(std::string_view bytes, const GgufHeader& header) {
  uint64_t sum = 0;
  for (const GgufTensor& t : header.tensors) {
    ASSERT_LE(t.bytes, bytes.size());
    ASSERT_LE(t.offset, bytes.size() - t.bytes);
    for (uint64_t i = 0; i < t.bytes; ++i) sum += static_cast<uint8_t>(bytes[t.offset + i]);
  }
  for (const auto& [key, value] : header.metadata) {
    sum += key.size();
    if (const auto* text = std::get_if<std::string_view>(&value)) sum += text->size();
    if (const auto* array = std::get_if<GgufArray>(&value)) {
      for (const std::string_view text : array->strings) sum += text.size();
      for (uint64_t i = 0; array->is_integer() && i < array->count; ++i)
        sum += static_cast<uint64_t>(array->integer(i));
    }
  }
  EXPECT_GT(sum + 1, 0u);
}

TEST(Gguf, EveryPrefixOfAFileIsAnError) {
  const std::string whole = sound_file();
  const auto header = parse(whole);
  ASSERT_TRUE(header.ok()) << header.status().text();
  const GgufTensor& last = header->tensors.back();
  for (size_t size = 0; size < last.offset + last.bytes; ++size) {
    EXPECT_FALSE(parse(std::string_view(whole).substr(0, size)).ok()) << size;
  }
}

TEST(Gguf, ChangedBytesNeverLeadOutsideTheFile) {
  const std::string whole = sound_file();
  const size_t header_end = parse(whole)->data_begin;
  Rng rng(3);
  constexpr uint64_t kLikely[] = {0, 1, 8, 9, 12, 31, 64, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, ~uint64_t{0}};
  int sound = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = whole;
    for (uint32_t n = 1 + rng.below(3); n > 0; --n) {
      const size_t at = rng.below(static_cast<uint32_t>(header_end));
      if (rng.below(2) == 0) {
        bytes[at] = static_cast<char>(rng.bits());
      } else {
        const uint64_t value = kLikely[rng.below(std::size(kLikely))] + rng.below(2);
        const size_t size = rng.below(2) == 0 ? 4 : 8;
        std::memcpy(bytes.data() + at, &value, std::min(size, bytes.size() - at));
      }
    }
    if (rng.below(4) == 0) bytes.resize(rng.below(static_cast<uint32_t>(bytes.size())));
    const auto header = parse(bytes);
    if (!header.ok()) {
      EXPECT_EQ(header.status().message().find('\n'), std::string::npos);
      continue;
    }
    ++sound;
    touch(bytes, *header);
  }
  EXPECT_GT(sound, 100);  // the mutations reach beyond the first checks
}

}  // namespace
}  // namespace nibble
