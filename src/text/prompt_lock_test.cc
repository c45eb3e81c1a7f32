#include "text/prompt_lock.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/sha256.h"

namespace nibble::text {
namespace {

ChatTemplate parse_template(const std::string& source) {
  auto parsed = ChatTemplate::parse(source, "t");
  NIBBLE_CHECK(parsed.ok());
  return *parsed;
}

const std::string kSource =
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>{% endif %}";

Json asked(const std::string& system) {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", "Hello"}});
  return messages;
}

PromptLock lock_of(const std::set<std::string>& system_prompts) {
  PromptLock lock;
  lock.template_hash = sha256_of(kSource);
  lock.system_prompts.emplace();
  for (const std::string& prompt : system_prompts) lock.system_prompts->insert(sha256_of(prompt));
  lock.tools = {{sha256_of("")}};
  lock.thinking = false;
  return lock;
}

std::string file_of(const PromptLock& lock) {
  return Json{{"mode", "qad"}, {"prompt", to_json(lock)}}.dump(2);
}

TEST(PromptLock, Sha256IsTheKnownOne) {
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(PromptLock, ComesBackFromItsFile) {
  PromptLock lock = lock_of({"You are A.", ""});
  lock.think_prefix_is_target = true;
  const auto parsed = parse_prompt_lock(file_of(lock), "f");
  ASSERT_TRUE(parsed.ok()) << parsed.status().text();
  EXPECT_EQ(**parsed, lock);
  lock.system_prompts->clear();
  for (int i = 0; i < 5000; ++i) lock.system_prompts->insert(sha256_of(std::to_string(i)));
  const auto large = parse_prompt_lock(file_of(lock), "f");
  ASSERT_TRUE(large.ok()) << large.status().text();
  EXPECT_FALSE((*large)->system_prompts) << "too many to tell anything";
  for (const char* none : {"{}", R"({"mode": "sft", "prompt_lock": "12"})", R"({"prompt": null})"}) {
    const auto nothing = parse_prompt_lock(none, "f");
    ASSERT_TRUE(nothing.ok());
    EXPECT_FALSE(*nothing);
  }
}

TEST(PromptLock, EveryOtherFileIsCorrupt) {
  const std::string hash = sha256_of("x");
  for (const std::string& bad : {std::string(), std::string("[]"), std::string("{"), std::string(R"({"prompt": 1})"),
                                 std::string(R"({"prompt": {}})"), R"({"prompt": {"template": ")" + hash + "\"}}",
                                 std::string(R"({"prompt": {"template": "abc", "think_prefix": "prompt"}})")}) {
    EXPECT_EQ(parse_prompt_lock(bad, "f").status().code(), Code::corrupt) << bad;
  }
  const Json good = to_json(lock_of({"a"}));
  const std::pair<const char*, Json> changes[] = {
      {"system_prompts", {"short"}},
      {"system_prompts", "text"},
      {"tools", {1}},
      {"thinking", "on"},
      {"think_prefix", "both"},
      {"template", std::string(64, 'G')},
      {"tools", std::vector<std::string>(PromptLock::kMaxHashes + 1, hash)}};
  for (const auto& [key, value] : changes) {
    Json json = good;
    json[key] = value;
    EXPECT_EQ(parse_prompt_lock(Json{{"prompt", json}}.dump(), "f").status().code(), Code::corrupt) << key;
  }
  const std::string whole = file_of(lock_of({"a", "b"}));
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {  // any answer is right, as long as there is one
    std::string text = whole.substr(0, rng.below(static_cast<uint32_t>(whole.size())) + 1);
    text[rng.below(static_cast<uint32_t>(text.size()))] = static_cast<char>(rng.below(256));
    static_cast<void>(parse_prompt_lock(text, "f"));
  }
}

TEST(PromptWatch, SaysOnceWhatDiffers) {
  const ChatTemplate chat_template = parse_template(kSource);
  PromptWatch watch(lock_of({"You are A."}), &chat_template);
  EXPECT_FALSE(watch.at_load());
  EXPECT_TRUE(watch.differences(asked("You are A."), Json(), false).empty());
  const auto first = watch.differences(asked("You are B."), Json(), false);
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].find("the system prompt (sha256 " + sha256_of("You are B.").substr(0, 12)), 0u) << first[0];
  EXPECT_EQ(first[0].find("You are"), std::string::npos) << "no text of prompts";
  EXPECT_TRUE(watch.differences(asked("You are B."), Json(), false).empty()) << "told before";
  EXPECT_EQ(watch.differences(asked("You are C."), Json(), false).size(), 1u);
  EXPECT_NE(watch.differences(asked(""), Json(), false)[0].find("no system prompt"), std::string::npos);
  const Json tools = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  EXPECT_NE(watch.differences(asked("You are A."), tools, false)[0].find("tools"), std::string::npos);
}

TEST(PromptWatch, ThinkingDiffersWhereThePromptDoes) {
  const ChatTemplate chat_template = parse_template(kSource);
  PromptWatch watch(lock_of({""}), &chat_template);
  EXPECT_TRUE(watch.differences(asked(""), Json(), {}).empty()) << "the template leaves it off by itself";
  const auto on = watch.differences(asked(""), Json(), true);
  ASSERT_EQ(on.size(), 1u);
  EXPECT_EQ(on[0], "thinking is on, but the model was trained with it off");
}

TEST(PromptWatch, KnowsAnotherTemplateAtLoad) {
  const ChatTemplate other = parse_template(kSource + " ");
  EXPECT_NE(PromptWatch(lock_of({""}), &other).at_load()->find("chat template"), std::string::npos);
}

TEST(PromptWatch, WithoutALockItIsSilent) {
  PromptWatch watch;
  EXPECT_FALSE(watch.at_load());
  EXPECT_TRUE(watch.differences(asked("x"), Json(), true).empty());
}

}  // namespace
}  // namespace nibble::text
