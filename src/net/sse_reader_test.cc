#include "net/sse_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace nibble::net {
namespace {

using Events = std::vector<std::string>;

// The events of `stream` fed in pieces of at most `step` bytes, each as "name|data".
Events read(std::string_view stream, size_t step = std::string_view::npos) {
  SseReader reader;
  Events events;
  while (!stream.empty()) {
    const std::string_view piece = stream.substr(0, step);
    stream.remove_prefix(piece.size());
    EXPECT_TRUE(reader
                    .feed(piece,
                          [&](const SseEvent& event) {
                            events.push_back(event.name + "|" + event.data);
                            return true;
                          })
                    .ok());
  }
  return events;
}

struct Case {
  const char* what;
  std::string stream;
  Events events;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"two events", "data: a\n\ndata: b\n\n", {"|a", "|b"}},
      {"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", {"|a", "|b"}},
      {"CR alone", "data: a\r\rdata: b\r\r", {"|a", "|b"}},
      {"mixed line ends", "data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", {"|a", "|b", "|c"}},
      {"one space is dropped, no more", "data:a\n\ndata:  b\n\n", {"|a", "| b"}},
      {"several data lines", "data: a\ndata\ndata: c\n\n", {"|a\n\nc"}},
      {"comments and unknown fields", ": ping\n\nfoo: 1\nid: 7\nretry: 9\ndata: a\n\n", {"|a"}},
      {"named event, and its name is not kept", "event: delta\ndata: a\n\ndata: b\n\n", {"delta|a", "|b"}},
      {"an event without data is none", "event: x\n\ndata: a\n\n", {"|a"}},
      {"empty data is an event", "data:\n\n", {"|"}},
      {"byte order mark",
       "\xEF\xBB\xBF"
       "data: a\n\n",
       {"|a"}},
      {"no closing blank line", "data: a\n\ndata: b\n", {"|a"}},
      {"colon in the value", "data: {\"a\": 1}\n\n", {"|{\"a\": 1}"}},
      {"nothing", "", {}},
  };
  return all;
}

TEST(SseReader, ReadsEveryCaseInEveryChunking) {
  for (const Case& c : cases()) {
    for (const size_t step : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, std::string::npos}) {
      EXPECT_EQ(read(c.stream, step), c.events) << c.what << ", step " << step;
    }
  }
}

TEST(SseReader, StopsWhenTold) {
  SseReader reader;
  int events = 0;
  ASSERT_TRUE(reader.feed("data: a\n\ndata: b\n\n", [&](const SseEvent&) { return ++events < 1; }).ok());
  EXPECT_TRUE(reader.stopped());
  ASSERT_TRUE(reader.feed("data: c\n\n", [&](const SseEvent&) { return ++events < 1; }).ok());
  EXPECT_EQ(events, 1);
}

TEST(SseReader, BoundsOneEventButNotTheStream) {
  const auto ignore = [](const SseEvent&) { return true; };
  SseReader reader(16);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(reader.feed("data: 12345678\n\n", ignore).ok());
  EXPECT_EQ(reader.feed("data: 123456789012345", ignore).code(), Code::corrupt);
  EXPECT_EQ(reader.feed("\n\n", ignore).code(), Code::corrupt);
  SseReader lines(16);
  Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) status = lines.feed("data: 1\n", ignore);
  EXPECT_EQ(status.code(), Code::corrupt);
}

// Random bytes over the characters that matter: no crash, and the chunking never shows.
TEST(SseReader, ChunkingNeverChangesTheEvents) {
  constexpr std::string_view kAlphabet = "data: \r\n\n\rx\xEF\xBB\xBF:event";
  Rng rng(7);
  for (int round = 0; round < 3000; ++round) {
    std::string stream;
    const uint32_t pieces = rng.below(60);
    for (uint32_t i = 0; i < pieces; ++i) {
      if (rng.below(4) == 0) stream += "data: ";
      stream += kAlphabet[rng.below(kAlphabet.size())];
    }
    EXPECT_EQ(read(stream, 1 + rng.below(5)), read(stream));
  }
}

}  // namespace
}  // namespace nibble::net
