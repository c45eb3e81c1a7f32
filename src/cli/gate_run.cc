#include "cli/gate_run.h"

#include <algorithm>

#include "base/clock.h"
#include "base/machine.h"
#include "cli/gate_suite.h"
#include "cli/revision.h"
#include "cli/run_folder.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "gate/baseline.h"
#include "gate/chat_stream.h"
#include "gate/compare.h"
#include "gate/model_judge.h"
#include "gate/report_html.h"
#include "gate/run_files.h"

namespace nibble::cli {
namespace {

constexpr int kJobs = 8;
constexpr size_t kQuickCases = 5;
constexpr uint64_t kMaxPromptBytes = 1 << 20;

// Whether a case bears one of the words: its id, its category, a gate or a tag of it.
bool is_named(const gate::Case& one, const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    const auto in = [&](const std::vector<std::string>& list) {
      return std::find(list.begin(), list.end(), word) != list.end();
    };
    return one.id == word || one.category == word || in(one.gates) || in(one.tags);
  });
}

void set_params(const GateFlags& flags, Json& params) {
  if (flags.max_tokens > 0) params["max_tokens"] = flags.max_tokens;
  if (flags.thinking == "default") params.erase("chat_template_kwargs");
  if (flags.thinking == "on" || flags.thinking == "off") {
    params["chat_template_kwargs"]["enable_thinking"] = flags.thinking == "on";
  }
}

// One run, or the two of a comparison.
class Session {
 public:
  explicit Session(GateFlags flags) : flags_(std::move(flags)) {}

  Result<int> run() {
    NIBBLE_RETURN_IF_ERROR(prepare());
    NIBBLE_RETURN_IF_ERROR(flags_.merge.empty() ? play() : merge());
    for (gate::Records& records : records_) records.suppress(suppressions_);
    NIBBLE_TRY(report, gate::report_of(recipe_, records_[0], flags_.report));
    report.run = about(0);
    NIBBLE_RETURN_IF_ERROR(write_side(0, report));
    if (sides_.size() == 2) return finish_comparison(report);
    if (!flags_.json) fmt::print("{}", gate::to_text(report));
    NIBBLE_RETURN_IF_ERROR(explain(0));
    Json json = gate::to_json(report);
    NIBBLE_RETURN_IF_ERROR(ask_judge(json));
    NIBBLE_TRY(regressed, hold_against_baseline(report, json));
    if (flags_.json) print_json(json);
    const int code = regressed && report.exit_code() == 0 ? 1 : report.exit_code();
    NIBBLE_RETURN_IF_ERROR(remember(report, code));
    return code;
  }

 private:
  Status prepare() {
    NIBBLE_TRY(recipe, chosen_recipe(flags_));
    recipe_ = std::move(recipe);
    if (flags_.hardened && !flags_.against.empty()) {
      return invalid_argument("{}: expected --hardened or --against, got both", flags_.command);
    }
    if (flags_.output.empty() && flags_.run.resume) {
      return invalid_argument("{}: --resume belongs to --output", flags_.command);
    }
    if (flags_.baseline.empty() && flags_.fail_on_regression) {
      return invalid_argument("{}: --fail-on-regression belongs to --baseline", flags_.command);
    }
    const bool two_runs = flags_.hardened || !flags_.against.empty();
    if (two_runs && !(flags_.baseline.empty() && flags_.save_baseline.empty())) {
      return invalid_argument("{}: --baseline and --save-baseline are of one run, and not for --against and --hardened",
                              flags_.command);
    }
    count_repeats();
    flags_.run.version = fmt::format("{} {}", kVersion, kRevision);
    flags_.report.repeats = flags_.run.repeats;
    started_ = utc_now();
    NIBBLE_RETURN_IF_ERROR(read_suppressions());
    NIBBLE_RETURN_IF_ERROR(open_judge());
    if (!flags_.merge.empty()) return check_merge();
    NIBBLE_RETURN_IF_ERROR(read_shard());
    NIBBLE_RETURN_IF_ERROR(add_side(flags_.server, flags_.play));
    judge_latency_where_named();
    if (!flags_.against.empty()) {
      ServerFlags other;
      std::error_code ignored;
      (std::filesystem::exists(flags_.against, ignored) ? (other.model = flags_.against, 0)
                                                        : (other.endpoint = flags_.against, 0));
      NIBBLE_RETURN_IF_ERROR(add_side(other, flags_.play));
    }
    if (flags_.hardened) {
      NIBBLE_TRY(hardening, hardening_prompt());
      gate::Side side = sides_[0];
      side.play.hardening = hardening;
      if (!side.log.empty()) side.log.replace_filename("run_b.jsonl");
      sides_.push_back(std::move(side));
    }
    return {};
  }

  // Of two servers the first decides.
  void judge_latency_where_named() {
    const std::string& wanted = recipe_.hardware;
    flags_.report.judge_latency |= !wanted.empty() && hardware(sides_[0]).find(wanted) != std::string::npos;
    flags_.run.jobs = flags_.jobs > 0 ? flags_.jobs : flags_.report.judge_latency ? 1 : kJobs;
  }

  Status read_shard() {
    if (flags_.shard.empty()) return {};
    gate::RunOptions& run = flags_.run;
    char rest = 0;
    if (std::sscanf(flags_.shard.c_str(), "%d/%d%c", &run.shard, &run.shards, &rest) == 2 && run.shard >= 1 &&
        run.shard <= run.shards && run.shards <= 10'000) {
      return {};
    }
    return invalid_argument("{}: --shard: expected i/n with 1 <= i <= n, got {}", flags_.command, flags_.shard);
  }

  Status play() {
    ProgressBar bar(flags_.command);
    NIBBLE_TRY(records, gate::play_recipe(recipe_, sides_, flags_.run, bar.callback()));
    records_ = std::move(records);
    return {};
  }

  Status check_merge() const {
    if (flags_.output.empty() || !flags_.against.empty() || flags_.hardened || !flags_.shard.empty()) {
      return invalid_argument("{}: --merge goes with --output, and not with --against, --hardened and --shard",
                              flags_.command);
    }
    return {};
  }

  Status merge() {
    std::vector<Path> logs;
    for (const Path& folder : flags_.merge) logs.push_back(folder / "run.jsonl");
    NIBBLE_TRY(merged, gate::merge_logs(recipe_, logs, flags_.output / "run.jsonl"));
    const auto text = [&](const char* key) {
      const Json& value = gate::member(merged.header, key);
      return value.is_string() ? value.get<std::string>() : "";
    };
    gate::Side& side = sides_.emplace_back();
    side.endpoint.model = text("model");
    side.server = gate::member(merged.header, "server");
    side.play.hardening = text("hardening");
    judge_latency_where_named();
    if (const Json& repeats = gate::member(merged.header, "repeats"); repeats.is_number_integer()) {
      flags_.run.repeats = flags_.report.repeats = std::clamp(repeats.get<int>(), 1, 1'000'000);
    }
    records_.push_back(std::move(merged.records));
    return {};
  }

  // What is wrong with these files and servers is said before anything is played.
  Status read_suppressions() {
    if (flags_.suppressions.empty()) return {};
    NIBBLE_TRY(suppressions, gate::read_suppressions(flags_.suppressions));
    suppressions_ = std::move(suppressions);
    for (const gate::Suppression& suppression : suppressions_) {
      const auto is_case = [&](const gate::Case& one) { return one.id == suppression.case_id; };
      if (std::none_of(recipe_.cases.begin(), recipe_.cases.end(), is_case)) {
        return invalid_argument("{}: expected a case of {}, got {}", flags_.suppressions.string(), recipe_.name,
                                suppression.case_id);
      }
    }
    return {};
  }

  Status open_judge() {
    if (flags_.judge.endpoint.empty()) return {};
    NIBBLE_TRY(server, open_server(flags_.judge, flags_.command));
    judge_ = server.endpoint;
    return {};
  }

  Status ask_judge(Json& json) {
    if (!judge_) return {};
    gate::JudgeOptions options{.endpoint = *judge_,
                               .log = flags_.output.empty() ? Path() : flags_.output / "judge.jsonl",
                               .jobs = flags_.run.jobs,
                               .repeats = flags_.run.repeats};
    const std::string& model = judge_->model;
    {
      ProgressBar bar("judge");
      if (records_.size() == 2) {
        NIBBLE_TRY(pairs, gate::judge_pairs(recipe_, records_[0], records_[1], options, bar.callback()));
        json["judge"] = gate::to_json(pairs, model);
      } else {
        NIBBLE_TRY(plays, gate::judge_plays(recipe_, records_[0], options, bar.callback()));
        json["judge"] = gate::to_json(plays, model);
      }
    }
    if (!flags_.json) fmt::print("\n{}", gate::judge_text(json["judge"]));
    if (flags_.output.empty()) return {};
    return write_file(flags_.output / "judge.json",
                      json["judge"].dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  // As many repeats of every conversation as give the sessions and the messages that were asked for.
  void count_repeats() {
    int64_t turns = 0;
    for (const gate::Case& one : recipe_.cases) turns += static_cast<int64_t>(one.turns.size());
    const auto cases = static_cast<int64_t>(recipe_.cases.size());
    const int64_t wanted = std::max((flags_.sessions + cases - 1) / cases, (flags_.messages + turns - 1) / turns);
    flags_.run.repeats = std::max(flags_.run.repeats, static_cast<int>(wanted));
  }

  Status add_side(const ServerFlags& flags, const gate::PlayOptions& play) {
    NIBBLE_TRY(server, open_server(flags, flags_.command));
    gate::Side side{.endpoint = server.endpoint, .play = play, .server = server.about, .log = {}};
    gate::ChatEndpoint endpoint(server.endpoint);
    NIBBLE_TRY(capabilities, gate::probe(endpoint));
    side.capabilities = capabilities;
    side.server["capabilities"] = gate::to_json(capabilities);
    if (sides_.empty() && !flags_.hardware.empty()) side.server["hardware"] = flags_.hardware;
    side.play.template_kwargs = capabilities.template_kwargs != false;
    if (!flags_.output.empty()) {
      NIBBLE_RETURN_IF_ERROR(create_run_folder(flags_.output, flags_.command));
      side.log = flags_.output / (sides_.empty() ? "run.jsonl" : "run_b.jsonl");
    }
    sides_.push_back(std::move(side));
    servers_.push_back(std::move(server));
    return {};
  }

  Result<std::string> hardening_prompt() const {
    std::string text;
    if (!flags_.hardened_file.empty()) {
      NIBBLE_TRY(read, read_file(flags_.hardened_file, kMaxPromptBytes));
      text = std::move(read);
    } else if (const auto found = recipe_.prompts.find("hardened"); found != recipe_.prompts.end()) {
      text = found->second;
    } else {
      return invalid_argument("{}: expected a prompt \"hardened\" in the recipe, got none", flags_.command)
          .with_hint("--hardened-file FILE gives one");
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }

  Json about(size_t side) const {
    const gate::Side& with = sides_[side];
    Json json = {{"command", flags_.command},
                 {"started", started_},
                 {"seconds", watch_.seconds()},
                 {"recipe", recipe_.name},
                 {"recipe_version", recipe_.version},
                 {"recipe_hash", recipe_.hash},
                 {"model", with.endpoint.model},
                 {"endpoint", with.endpoint.url},
                 {"server", with.server},
                 {"params", recipe_.params},
                 {"repeats", flags_.run.repeats},
                 {"jobs", flags_.run.jobs},
                 {"machine", machine_name()},
                 {"prompt_hash", gate::prompt_hash(recipe_, with.play)},
                 {"nibble", kVersion},
                 {"git", kRevision}};
    if (side < servers_.size() && servers_[side].own != nullptr) json["memory_bytes"] = peak_memory_bytes();
    if (const std::string text = hardware(with); !text.empty()) json["hardware"] = text;
    if (!with.play.hardening.empty()) json["hardening"] = with.play.hardening;
    return json;
  }

  // What a server runs on, by --hardware, or as one of ours says.
  static std::string hardware(const gate::Side& side) {
    const Json& text = gate::member(side.server, "hardware");
    return text.is_string() ? text.get<std::string>() : "";
  }

  Status explain(size_t side) const {
    if (!flags_.explain || flags_.json) return {};
    fmt::print("\nfound in the replies of {}\n", side_name(side));
    return gate::for_each_record(recipe_, records_[side], flags_.run.repeats,
                                 [](const gate::Case&, const gate::CaseRecord& record) -> Status {
                                   fmt::print("{}", gate::findings_text(record));
                                   return {};
                                 });
  }

  Status write_side(size_t side, const gate::Report& report) {
    if (flags_.output.empty()) return {};
    return gate::write_run_files(flags_.output, side == 0 ? "" : "_b", recipe_, records_[side], report,
                                 flags_.run.repeats);
  }

  Result<int> finish_comparison(const gate::Report& report_a) {
    NIBBLE_TRY(report_b, gate::report_of(recipe_, records_[1], flags_.report));
    report_b.run = about(1);
    NIBBLE_RETURN_IF_ERROR(write_side(1, report_b));
    NIBBLE_TRY(comparison, gate::compare_runs(recipe_, records_[0], records_[1], flags_.report));
    comparison.report_a.run = about(0);
    comparison.report_b.run = about(1);
    Json json = gate::to_json(comparison);
    json["run"] = {{"a", comparison.report_a.run}, {"b", comparison.report_b.run}};
    if (flags_.hardened) {
      for (size_t i = 0; i < comparison.gates.size(); ++i) {
        json["gates"][i]["hardening"] = gate::name(gate::hardening_of(comparison.gates[i]));
      }
    }
    if (!flags_.output.empty()) {
      NIBBLE_RETURN_IF_ERROR(
          write_file(flags_.output / "compare.json", json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
      const gate::ComparedSides sides{records_[0], records_[1], side_name(0), side_name(1), flags_.hardened};
      NIBBLE_RETURN_IF_ERROR(
          gate::write_compare_html(flags_.output / "compare.html", recipe_, sides, comparison, flags_.run.repeats));
    }
    if (!flags_.json) {
      fmt::print("{}", gate::to_text(comparison, side_name(0), side_name(1)));
      if (flags_.hardened) print_hardening(comparison);
    }
    for (const size_t side : {0, 1}) NIBBLE_RETURN_IF_ERROR(explain(side));
    NIBBLE_RETURN_IF_ERROR(ask_judge(json));
    if (flags_.json) print_json(json);
    const int code = std::max(report_a.errors, report_b.errors) > 0 ? 2 : report_a.exit_code();
    NIBBLE_RETURN_IF_ERROR(remember(report_a, code));
    return code;
  }

  // For nibble runs, in the folder that holds the run's own.
  Status remember(const gate::Report& report, int code) const {
    if (flags_.output.empty()) return {};
    return remember_run(flags_.output, {.id = {},
                                        .command = flags_.command,
                                        .started = started_,
                                        .recipe = recipe_.name,
                                        .model = sides_[0].endpoint.model,
                                        .cases = report.overall.cases,
                                        .passed = report.overall.passed,
                                        .exit_code = code,
                                        .report = gate::to_json(report)});
  }

  std::string side_name(size_t side) const {
    const std::string& model = sides_[side].endpoint.model;
    return !flags_.hardened ? model : model + (side == 0 ? ", as the recipe asks" : ", hardened");
  }

  static void print_hardening(const gate::Comparison& comparison) {
    fmt::print("\nwhat the hardened prompt does\n");
    for (const gate::GateDelta& gate : comparison.gates) {
      if (gate.n > 0) fmt::print("{:<18}{}\n", gate.gate, gate::name(gate::hardening_of(gate)));
    }
  }

  // Whether the run must fail because of the baseline.
  Result<bool> hold_against_baseline(const gate::Report& report, Json& json) {
    if (flags_.baseline.empty() && flags_.save_baseline.empty()) return false;
    NIBBLE_TRY(now, gate::baseline_of(recipe_, records_[0], report, flags_.run.repeats));
    if (!flags_.save_baseline.empty()) NIBBLE_RETURN_IF_ERROR(gate::write_baseline(flags_.save_baseline, now));
    if (flags_.baseline.empty()) return false;
    NIBBLE_TRY(then, gate::read_baseline(flags_.baseline));
    const gate::BaselineComparison comparison = gate::compare_with_baseline(then, now);
    json["regressions"] = comparison.regressions;
    if (!flags_.json) fmt::print("\n{}", gate::to_text(comparison));
    return flags_.fail_on_regression && comparison.regressed();
  }

  GateFlags flags_;
  gate::Recipe recipe_;
  std::vector<gate::Suppression> suppressions_;
  std::optional<gate::EndpointOptions> judge_;
  std::vector<PlayedServer> servers_;
  std::vector<gate::Side> sides_;
  std::vector<gate::Records> records_;
  std::string started_;
  Stopwatch watch_;
};

}  // namespace

Result<gate::Recipe> chosen_recipe(const GateFlags& flags) {
  const std::string by_default = flags.cases.empty() ? flags.default_recipe : "small_world";
  NIBBLE_TRY(recipe, !flags.suite.name.empty() ? suite_recipe(flags)
                                               : gate::load_recipe(flags.recipe.empty() ? by_default : flags.recipe));
  if (!flags.cases.empty()) {
    NIBBLE_TRY(cases, gate::read_cases(flags.cases));
    for (gate::Case& one : cases) {
      one.params = recipe.params;
      recipe.cases.push_back(std::move(one));
    }
  }
  if (!flags.only.empty()) {
    std::erase_if(recipe.cases, [&](const gate::Case& one) { return !is_named(one, flags.only); });
  }
  if (flags.limit > 0 && flags.limit < recipe.cases.size()) recipe.cases.resize(flags.limit);
  const size_t sample = flags.quick ? kQuickCases : flags.sample;
  if (sample > 0) recipe.cases = gate::stratified(std::move(recipe.cases), sample);
  if (recipe.cases.empty()) {
    return invalid_argument("{}: expected a case to play, got none of {}", flags.command, recipe.name)
        .with_hint("--cases FILE gives them, --only takes ids, categories, gates and tags");
  }
  set_params(flags, recipe.params);
  for (gate::Case& one : recipe.cases) set_params(flags, one.params);
  return std::move(recipe);
}

Result<int> run_gate_command(GateFlags flags) {
  return Session(std::move(flags)).run();
}

void add_play_flags(CLI::App& command, GateFlags& flags) {
  ServerFlags& server = flags.server;
  command.add_option("--model", server.model, "a checkpoint folder or GGUF file, served on loopback for the run");
  add_act_flag(command, server.act, "--model");
  command.add_option("--endpoint", server.endpoint, "base URL of a running server");
  command.add_option("--endpoint-model", server.served_name, "model id to ask for (default: the first listed)");
  command.add_option("--api-key-file", server.api_key_file, "file with the server's key");
  command.add_flag("--exact", server.exact, "with --model: f32 activations");
  command.add_option("--recipe", flags.recipe,
                     fmt::format("{}, or a file ending in .json (default: {})", fmt::join(gate::recipe_names(), ", "),
                                 flags.default_recipe));
  command.add_option("--only", flags.only, "play only cases with such an id, category, gate or tag");
  command.add_option("--limit", flags.limit, "play the first N cases (0 = all)")->check(CLI::NonNegativeNumber);
  command.add_option("--temperature", flags.play.temperature, "instead of the recipe's")->check(CLI::Range(0.0, 2.0));
  command.add_option("--max-tokens", flags.max_tokens, "longest reply, instead of the recipe's")
      ->check(CLI::Range(1, 1 << 20));
  command
      .add_option("--thinking", flags.thinking,
                  "enable_thinking instead of the recipe's: on, off, or default (leave it out)")
      ->check(CLI::IsMember({"on", "off", "default"}));
  command.add_option("--jobs", flags.jobs, "cases in flight (default: 8, with --judge-latency 1)")
      ->check(CLI::Range(1, 256));
  command.add_option("--hardware", flags.hardware,
                     "what the server runs on, for the report; where it holds the words of the recipe's \"hardware\",\n"
                     "latency gates are judged (default: of a --model, this machine)");
  command.add_flag("--judge-latency", flags.report.judge_latency, "judge latency gates wherever the server runs");
  command.add_flag("--explain", flags.explain, "print every finding of the detectors and what cases failed by");
  command.add_option("--output", flags.output, "folder for run.jsonl and the reports");
  command.add_flag("--resume", flags.run.resume, "go on with the run in --output");
  command.add_flag("--no-content", flags.run.no_content, "keep hashes of texts in run.jsonl, not the texts");
  command.add_flag("--json", flags.json, "print one JSON document");
}

}  // namespace nibble::cli
