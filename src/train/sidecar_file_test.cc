// A sidecar that is not whole, to the last byte, is refused in one line with a hint.
#include "train/sidecar_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/sidecar_test.h"
#include "train/crc32c.h"

namespace nibble::train {
namespace {

using SidecarFileTest = SidecarTest;

TEST_F(SidecarFileTest, KnownAnswerOfTheCheck) {
  EXPECT_EQ(Crc32c().add(std::as_bytes(std::span("123456789", 9))).value(), 0xE3069283u);
}

template <class T>
void put(std::string& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// A file with its parts at hand.
struct Parts {
  explicit Parts(const std::string& whole) {
    const ParsedSidecarHead parsed = *parse_sidecar_head(std::as_bytes(std::span(whole)), "whole");
    const size_t begin = parsed.layout.begin, end = parsed.layout.end(parsed.header.rows);
    head = whole.substr(0, begin);
    rows = whole.substr(begin, end - begin);
    index = whole.substr(end, whole.size() - end - 4);
    check = whole.substr(whole.size() - 4);
  }
  std::string bytes() {
    const std::string checked = head + index;
    if (seal) put(check, 0, Crc32c().add(std::as_bytes(std::span(checked))).value());
    return (head + rows + index + check).substr(0, keep);
  }
  // The header's length follows.
  void header(std::string_view from, std::string_view to) {
    head.replace(head.find(from), from.size(), to);
    put(head, 8, head.size() - 16);
  }
  void whole_header(std::string text) { head.replace(16, std::string::npos, text), put(head, 8, text.size()); }
  void entry(size_t i, uint64_t first, uint64_t count) {
    put(index, 8 + i * 80 + 64, first);
    put(index, 8 + i * 80 + 72, count);
  }

  std::string head, rows, index, check;
  bool seal = true;  // the check is made right
  size_t keep = std::string::npos;
};

struct Damage {
  const char* name;
  void (*apply)(Parts& p);
  const char* message;
};

constexpr uint64_t kHuge = ~uint64_t{0};

const Damage kDamages[] = {
    {"empty", [](Parts& p) { p.keep = 0; }, "NBLHID01"},
    {"other magic", [](Parts& p) { p.head[7] = '2'; }, "NBLHID01"},
    {"magic alone", [](Parts& p) { p.keep = 8; }, "NBLHID01"},
    {"endless header", [](Parts& p) { put(p.head, 8, kHuge); }, "a header of at most"},
    {"header beyond the file", [](Parts& p) { put(p.head, 8, uint64_t{60000}); }, "a header of at most"},
    {"header of nothing", [](Parts& p) { put(p.head, 8, uint64_t{0}); }, "header in JSON"},
    {"no JSON", [](Parts& p) { p.whole_header("{]"); }, "header in JSON"},
    {"deep JSON", [](Parts& p) { p.header("\"f32\"", "[[[[[]]]]]"); }, "header in JSON"},
    {"a key twice", [](Parts& p) { p.header("\"dtype\"", "\"hidden\":3,\"dtype\""); }, "header in JSON"},
    {"no object", [](Parts& p) { p.whole_header("[7]"); }, "a JSON object"},
    {"an empty object", [](Parts& p) { p.whole_header("{}"); }, "hidden from 1"},
    {"no width", [](Parts& p) { p.header("hidden", "hiding"); }, "hidden from 1"},
    {"width 0", [](Parts& p) { p.header("\"hidden\":3", "\"hidden\":0"); }, "hidden from 1"},
    {"width as text", [](Parts& p) { p.header("\"hidden\":3", "\"hidden\":\"3\""); }, "hidden from 1"},
    {"huge width", [](Parts& p) { p.header("\"hidden\":3", "\"hidden\":3000000"); }, "hidden from 1"},
    {"wide", [](Parts& p) { p.header("\"hidden\":3", "\"hidden\":9"); }, "at least"},
    {"rows below 0", [](Parts& p) { p.header("\"rows\":18", "\"rows\":-8"); }, "rows from 1"},
    {"rows as a fraction", [](Parts& p) { p.header("\"rows\":18", "\"rows\":1.5"); }, "rows from 1"},
    {"most rows", [](Parts& p) { p.header("\"rows\":18", "\"rows\":1099511627776"); }, "at least"},
    {"rows beyond 64 bits", [](Parts& p) { p.header("\"rows\":18", "\"rows\":18446744073709551616"); }, "rows from 1"},
    {"fewer rows", [](Parts& p) { p.header("\"rows\":18", "\"rows\":17"); }, "index of"},
    {"other dtype", [](Parts& p) { p.header("\"f32\"", "\"f64\""); }, "dtype f32 or bf16"},
    {"dtype as a number", [](Parts& p) { p.header("\"f32\"", "32"); }, "dtype f32 or bf16"},
    {"half the dtype", [](Parts& p) { p.header("\"f32\"", "\"bf16\""); }, "index of"},
    {"no teacher", [](Parts& p) { p.header("teacher_sha256", "reacher_sha256"); }, "teacher_sha256 as a string"},
    {"no date", [](Parts& p) { p.header("\"2001-01-01T00:00:00Z\"", "null"); }, "created as a string"},
    {"header changed", [](Parts& p) { p.header("2001", "2002"), p.seal = false; }, "a header and an index as written"},
    {"no index", [](Parts& p) { p.keep = p.head.size() + p.rows.size(); }, "at least"},
    {"index cut", [](Parts& p) { p.index.pop_back(); }, "index of 3 samples"},
    {"index too long", [](Parts& p) { p.index.push_back(0); }, "index of 3 samples"},
    {"more samples than there are", [](Parts& p) { put(p.index, 0, uint64_t{4}); }, "index of 4"},
    {"samples that overflow", [](Parts& p) { put(p.index, 0, (uint64_t{1} << 60) + 3); }, "index of"},
    {"a sample twice", [](Parts& p) { p.index.replace(88, 64, p.index, 8, 64); }, "samples in order"},
    {"samples not in order", [](Parts& p) { p.index[8] = 'z'; }, "samples in order"},
    {"no rows of a sample", [](Parts& p) { p.entry(1, 0, 0); }, "samples in order"},
    {"rows behind the end", [](Parts& p) { p.entry(1, 17, 2); }, "samples in order"},
    {"rows that overflow", [](Parts& p) { p.entry(1, kHuge, 2); }, "samples in order"},
    {"count that overflows", [](Parts& p) { p.entry(1, 2, kHuge); }, "samples in order"},
    {"a row changed", [](Parts& p) { p.rows[20] ^= 1; }, "rows 0 to 17 as written"},
    {"a check changed", [](Parts& p) { p.rows.back() ^= 1; }, "rows 0 to 17 as written"},
};

TEST_F(SidecarFileTest, RefusesWhatIsNotTheFormat) {
  const std::string whole = written(short_);
  ASSERT_TRUE(Parts(whole).bytes() == whole);
  for (const Damage& damage : kDamages) {
    Parts parts(whole);
    damage.apply(parts);
    ASSERT_TRUE(write_file(path_, parts.bytes()).ok());
    const Status status = read_all(path_);
    EXPECT_EQ(status.code(), Code::corrupt) << damage.name;
    EXPECT_NE(status.message().find(damage.message), std::string::npos) << damage.name << ": " << status.text();
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << damage.name;
    EXPECT_FALSE(status.hint().empty()) << damage.name;
  }
  EXPECT_EQ(SidecarFile::open(folder_ / "absent").status().code(), Code::not_found);
}

// Of every seventh byte: all of them take seconds.
TEST_F(SidecarFileTest, NoByteMayChangeAndNoneBeMissing) {
  const std::string whole = written(short_);
  ASSERT_TRUE(write_file(path_, whole).ok());
  ASSERT_TRUE(read_all(path_).ok());
  for (size_t i = 0; i < whole.size(); i += 7) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ (1 << i % 8));
    folder_.write("teacher.hid", changed);
    ASSERT_EQ(read_all(path_).code(), Code::corrupt) << "byte " << i;
    folder_.write("teacher.hid", whole.substr(0, i));
    ASSERT_EQ(read_all(path_).code(), Code::corrupt) << "cut at " << i;
  }
}

}  // namespace
}  // namespace nibble::train
