// For tests: a teacher whose answers depend on the request alone, and which misbehaves as real ones do. It reads the
// prompts of recipes/generate/prompts: which kind, which batch, how many.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/rng.h"
#include "io/json.h"
#include "tests/support/chat_server.h"

namespace nibble::test {

inline uint64_t fnv(std::string_view text) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return hash;
}

/// Conversations that every rule of the bundled recipes `companion` and `calibration` lets pass, each number its own.
class GoodRows {
 public:
  static Json row(const std::string& category, int64_t number) {
    Rng rng(fnv(category), static_cast<uint64_t>(number));
    Json messages = Json::array();
    const auto say = [&](const char* role, const std::string& text) {
      messages.push_back({{"role", role}, {"content", text}});
    };
    const auto talk = [&] {
      say("user", sentence(rng) + "?");
      say("assistant", "That is the " + word(rng) + " with the " + word(rng) + ", and " + word(rng) + " too.");
    };
    const auto call = [&](const char* tool, const Json& arguments, const char* result, const std::string& reply) {
      messages.push_back(
          {{"role", "assistant"}, {"content", ""}, {"tool_calls", {{{"name", tool}, {"arguments", arguments}}}}});
      say("tool", result);
      say("assistant", reply);
    };
    const auto note = [&] {
      const std::string text = word(rng) + " " + word(rng) + " " + word(rng) + " " + word(rng);
      say("user", "Note this, " + text + ", for the " + word(rng) + " and the " + word(rng) + ".");
      call("save_note", {{"text", text}}, R"({"ok": true})", "Your note on " + text + " is kept.");
    };
    const auto search = [&](const char* tool, bool found) {
      const std::string text = word(rng) + " " + word(rng) + " " + word(rng);
      say("user", "What was it about the " + text + " and the " + word(rng) + " of the " + word(rng) + "?");
      const std::string result = found ? R"({"results": ["the )" + text + R"( is sold"]})" : R"({"results": []})";
      call(tool, {{"query", text}}, result.c_str(),
           found ? "The " + text + " is sold." : "I do not remember anything about the " + text + ".");
    };
    if (category == "direct_action") {
      note();
    } else if (category == "honest_memory" || category == "memory") {
      search("search_memory", number % 3 == 0);
    } else if (category == "web") {
      search("web_search", true);
    } else if (category == "mixed") {
      talk();
      note();
      talk();
    } else {
      const int turns = category == "five_turn" ? 5 : category == "topic_switching" ? 2 : 1;
      for (int i = 0; i < turns; ++i) talk();
    }
    return {{"messages", messages}};
  }

 private:
  static std::string word(Rng& rng) {
    static const std::array<const char*, 96> kWords = {
        "lamp",   "river",  "basket", "window",  "ladder", "pepper", "violin", "carpet", "engine", "garden",  "pillow",
        "candle", "bridge", "copper", "ribbon",  "sailor", "tailor", "barrel", "button", "cherry", "donkey",  "feather",
        "guitar", "hammer", "island", "jacket",  "kettle", "lemon",  "mirror", "needle", "orchid", "pencil",  "quarry",
        "rocket", "saddle", "temple", "unicorn", "valley", "walnut", "yogurt", "zipper", "anchor", "bottle",  "cactus",
        "dragon", "easel",  "falcon", "goblet",  "harbor", "insect", "jungle", "kitten", "lizard", "magnet",  "napkin",
        "oyster", "parrot", "quiver", "rabbit",  "statue", "tunnel", "urchin", "velvet", "wagon",  "yarn",    "zebra",
        "acorn",  "bamboo", "canoe",  "dagger",  "ember",  "fiddle", "gravel", "helmet", "ivory",  "jasmine", "kiosk",
        "lagoon", "meadow", "nectar", "olive",   "puddle", "quilt",  "radish", "shovel", "turnip", "umbra",   "vessel",
        "willow", "yeast",  "zenith", "apron",   "beacon", "cobalt", "dahlia", "estate"};
    return kWords[rng.below(kWords.size())];
  }
  static std::string sentence(Rng& rng) {
    return "Is the " + word(rng) + " " + word(rng) + " near the " + word(rng) + " or the " + word(rng) + " of the " +
           word(rng) + " and " + word(rng);
  }
};

/// What a prompt asks for.
struct Asked {
  std::string category;
  int64_t batch = 0, count = 0;
  bool repair = false;

  static Asked of(const std::string& prompt) {
    Asked asked;
    asked.repair = prompt.rfind("You wrote", 0) == 0;
    const size_t kind = prompt.find("Kind (");
    const size_t end = prompt.find_first_of(",)", kind);
    asked.category = prompt.substr(kind + 6, end - kind - 6);
    const auto number = [&](const char* before) {
      const size_t at = prompt.find(before);
      return at == std::string::npos ? 0 : std::stoll(prompt.substr(at + std::string(before).size()));
    };
    asked.batch = number("batch ");
    asked.count = number(asked.repair ? "for training. " : "Write ");
    return asked;
  }
};

/// The text of an answer to a prompt. `faults`: some rows of each batch are broken, marked up, thought aloud, call a
/// tool that is not there or repeat another; some answers are cut off. `held`: how many different rows a category has.
struct ReplayAnswers {
  bool faults = false;
  int64_t held = int64_t{1} << 40;
  std::string short_category = {};  // the one that `held` is for; empty: all

  std::string text(const std::string& prompt, std::string& finish) const {
    const Asked asked = Asked::of(prompt);
    if (asked.repair) return repaired(prompt);
    std::string out = "[";
    for (int64_t i = 0; i < asked.count; ++i) out += (i == 0 ? "" : ",\n") + row_text(asked, i);
    finish = "stop";
    if (faults && asked.batch % 3 == 2) {  // cut off in the middle of the last row
      finish = "length";
      return out.substr(0, out.size() - 40);
    }
    return out + "]";
  }

 private:
  std::string row_text(const Asked& asked, int64_t i) const {
    const bool is_short = short_category.empty() || short_category == asked.category;
    const int64_t number = (asked.batch * 1000 + i) % (is_short ? held : int64_t{1} << 40);
    Json row = GoodRows::row(asked.category, number);
    if (!faults) return row.dump();
    Json& last = row["messages"].back();
    const auto said = last["content"].get<std::string>();
    switch ((asked.batch * 7 + i) % 20) {
      case 1:
        return row.dump().replace(20, 1, "\"");
      case 3:
        last["content"] = "**" + said + "**";
        break;
      case 5:
        last["content"] = "<think>The user wants a reply.</think>" + said;
        break;
      case 7:
        last["reasoning_content"] = "Let me see.";
        break;
      case 9:
        row["messages"].insert(row["messages"].begin() + 1,
                               {{{"role", "assistant"},
                                 {"content", ""},
                                 {"tool_calls", {{{"name", "open_door"}, {"arguments", Json::object()}}}}},
                                {{"role", "tool"}, {"content", "{}"}}});
        break;
      case 11:
        return GoodRows::row(asked.category, asked.batch * 1000).dump();  // the first of this batch again
      case 13:
        last["content"] = "1. " + said + "\n2. Done.";
        break;
      case 15:
        row["messages"][0]["content"] =
            "Call me on +91 98450 12345 about " + row["messages"][0]["content"].get<std::string>();
        break;
      default:
        break;
    }
    return row.dump();
  }

  // Two of three rows come back right, the others as they were.
  static std::string repaired(const std::string& prompt) {
    const size_t open = prompt.find("The conversations:\n") + 19, close = prompt.find("\nWrite each of them");
    Json out = Json::array();
    for (const Json& row : Json::parse(prompt.substr(open, close - open))) {
      const int64_t id = row["id"];
      const Asked asked = Asked::of(prompt);
      out.push_back(
          id % 3 == 0 ? Json{{"id", id}, {"messages", row["messages"]}}
                      : GoodRows::row(asked.category, static_cast<int64_t>(fnv(row.dump()) % 1000000000) + 1000000000));
      out.back()["id"] = id;
    }
    return "Here they are:\n```json\n" + out.dump(1) + "\n```";
  }
};

/// The same behind HTTP, with what goes wrong on the way: a storm of 429 at the start, connections that drop before and
/// in the middle of an answer, and one that stalls.
class ReplayTeacher {
 public:
  struct Trouble {
    int storm = 0;       // so many requests get 429 first
    int drop_every = 0;  // of the requests after it each n-th is dropped, by turns before and after its first bytes
    double stall_s = 0;  // one request is silent for so long in the middle of its answer
    double delay_s = 0;  // of every answer
  };
  explicit ReplayTeacher(ReplayAnswers answers) : ReplayTeacher(std::move(answers), Trouble{}) {}
  ReplayTeacher(ReplayAnswers answers, Trouble trouble)
      : answers_(std::move(answers)),
        trouble_(trouble),
        server_(
            [this](const LoopbackRequest& request, LoopbackConnection& connection) { serve(request, connection); }) {}

  std::string url() const { return server_.url(); }
  int requests() const { return server_.requests(); }

 private:
  void serve(const LoopbackRequest& request, LoopbackConnection& connection) {
    const int number = ++number_;
    if (number <= trouble_.storm) {
      return connection.reply(429, R"({"error":{"message":"slow down"}})", "Retry-After: 1\r\n");
    }
    const Json body = parse_json(request.body, "request").value();
    std::string finish;
    const std::string text = answers_.text(body["messages"].back()["content"].get<std::string>(), finish);
    const std::string events = std::string(kStreamHead) + chat_events({.content = text}, finish);
    if (trouble_.drop_every > 0 && number % trouble_.drop_every == 0) {
      if (number / trouble_.drop_every % 2 == 0) connection.send(events.substr(0, events.size() / 2));
      return connection.close();
    }
    if (trouble_.delay_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(trouble_.delay_s));
    if (trouble_.stall_s > 0 && !stalled_.exchange(true)) {
      connection.send(events.substr(0, events.size() / 3));
      std::this_thread::sleep_for(std::chrono::duration<double>(trouble_.stall_s));
      connection.send(events.substr(events.size() / 3));
      return connection.close();
    }
    connection.send(events);
    connection.close();
  }

  ReplayAnswers answers_;
  Trouble trouble_;
  std::atomic<int> number_{0};
  std::atomic<bool> stalled_{false};
  LoopbackServer server_;
};

}  // namespace nibble::test
