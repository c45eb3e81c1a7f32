#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace nibble::text {
namespace {

const Path kSource = NIBBLE_SOURCE_DIR;

Json json(std::string_view text) {
  auto parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed.ok()) << parsed.status().text();
  return parsed.ok() ? *parsed : Json();
}

ChatTemplate load_template(const Path& path) {
  auto source = read_file(path);
  EXPECT_TRUE(source.ok()) << source.status().text();
  auto chat = ChatTemplate::parse(*source, path.filename().string());
  EXPECT_TRUE(chat.ok()) << chat.status().text();
  return *chat;
}

// A golden case: messages, tools?, add_generation_prompt?, and any other scalar as kwargs.
Result<Rendered> render_case(const ChatTemplate& chat, const Json& c) {
  RenderOptions options;
  options.add_generation_prompt = c.value("add_generation_prompt", false);
  if (c.contains("enable_thinking")) options.kwargs["enable_thinking"] = c["enable_thinking"];
  options.limits.cpu_ms = 10'000;  // a sanitizer build is slow
  return chat.render(c["messages"], c.value("tools", Json()), options);
}

TEST(ChatTemplate, TinyVoiceGoldens) {
  const auto chat = ChatTemplate::load(kSource / "models/tiny-voice");
  ASSERT_TRUE(chat.ok()) << chat.status().text();
  const auto lines = read_file(kSource / "tests/golden/tiny-voice/template.jsonl");
  ASSERT_TRUE(lines.ok()) << lines.status().text();
  int cases = 0;
  for (size_t begin = 0; begin < lines->size();) {
    const size_t end = std::min(lines->find('\n', begin), lines->size());
    const Json c = json(std::string_view(*lines).substr(begin, end - begin));
    const auto rendered = render_case(*chat, c);
    ASSERT_TRUE(rendered.ok()) << rendered.status().text();
    EXPECT_EQ(rendered->text, c["text"].get<std::string>()) << "case " << cases;
    ++cases;
    begin = end + 1;
  }
  EXPECT_EQ(cases, 40);
}

TEST(ChatTemplate, PublishedTemplateGoldens) {
  const Path folder = kSource / "../shared/goldens/templates";
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "skipped: goldens of published templates are not here (" << folder << ")";
  const auto text = read_file(folder / "render_goldens.json");
  ASSERT_TRUE(text.ok());
  const Json goldens = json(*text);
  int renders = 0;
  for (const auto& [file, expected] : goldens["rendered"].items()) {
    const ChatTemplate chat = load_template(folder / file);
    for (const auto& [name, want] : expected.items()) {
      const auto got = render_case(chat, goldens["cases"][name]);
      const std::string golden = want.get<std::string>();
      if (golden.starts_with("!! ")) {
        const std::string message = golden.substr(golden.find(": ") + 2);
        ASSERT_FALSE(got.ok()) << file << " " << name;
        EXPECT_TRUE(got.status().message().ends_with(message)) << file << " " << name << ": " << got.status().text();
      } else {
        ASSERT_TRUE(got.ok()) << file << " " << name << ": " << got.status().text();
        EXPECT_EQ(got->text, golden) << file << " " << name;
      }
      ++renders;
    }
  }
  EXPECT_EQ(renders, 36);
}

}  // namespace
}  // namespace nibble::text
