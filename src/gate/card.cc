#include "gate/card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>

#include "gate/chat_stream.h"
#include "io/json_text.h"
#include "io/sqlite.h"
#include "train/metrics.h"

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
constexpr const char* kNotMeasured = "not measured";

// A file of a run, read.
struct Source {
  Path file;
  Json json;
};

struct Training {
  Path file;
  Json settings;
  train::RunMetrics metrics;
};

// What the runs left, by kind.
struct Sources {
  std::vector<Source> configs, gates, quantize, benches, speeds, evals, data;
  std::vector<Training> trainings;
};

Result<Json> read_json_file(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  return parse_json(text, file.string(), {.max_keys = 1 << 20, .max_bytes = kMaxFileBytes});
}

// Puts a file where its contents belong; false where nibble does not know it.
bool sort_in(const Path& file, Json json, Sources& sources) {
  if (member(json, "gates").is_array() && member(json, "overall").is_object()) {
    json.erase("conversations");
    sources.gates.push_back({file, std::move(json)});
  } else if (json.contains("effective_bits") && json.contains("recipe")) {
    sources.quantize.push_back({file, std::move(json)});
  } else if (member(json, "points").is_array() && json.contains("probe_gb_s")) {
    sources.benches.push_back({file, std::move(json)});
  } else if (member(json, "figures").is_array() && member(json, "infra").is_object()) {
    json.erase("records");
    sources.speeds.push_back({file, std::move(json)});
  } else if (json.contains("mean_kl") || member(json, "models").is_array()) {
    sources.evals.push_back({file, std::move(json)});
  } else if (member(json, "model_type").is_string()) {
    sources.configs.push_back({file, std::move(json)});
  } else if (json.contains("teacher") && member(json, "categories").is_object()) {
    sources.data.push_back({file, std::move(json)});
  } else {
    return false;
  }
  return true;
}

Status read_training(const Path& folder, Sources& sources) {
  const Path file = folder / "metrics.db";
  NIBBLE_TRY(database, Database::open(file, Database::Mode::read));
  NIBBLE_TRY(statement, database.prepare("SELECT settings FROM runs ORDER BY id DESC LIMIT 1"));
  NIBBLE_TRY(row, statement.step());
  Training training{.file = file, .settings = Json::object(), .metrics = {}};
  if (row) {
    NIBBLE_TRY(settings, parse_json(statement.text(0), file.string()));
    training.settings = std::move(settings);
  }
  NIBBLE_TRY(metrics, train::read_metrics(folder));
  training.metrics = std::move(metrics);
  sources.trainings.push_back(std::move(training));
  return {};
}

Status read_path(const Path& path, Sources& sources) {
  std::error_code ignored;
  bool found = false;
  if (!std::filesystem::is_directory(path, ignored)) {
    NIBBLE_TRY(json, read_json_file(path));
    found = sort_in(path, std::move(json), sources);
  } else {
    for (const char* name : {"report.json", "report_b.json", "config.json", "quantize.json", "bench.json"}) {
      if (!std::filesystem::exists(path / name, ignored)) continue;
      NIBBLE_TRY(json, read_json_file(path / name));
      if (!sort_in(path / name, std::move(json), sources))
        return corrupt("card: expected a run's file, got another ({})", (path / name).string());
      found = true;
    }
    if (std::filesystem::exists(path / "metrics.db", ignored)) {
      NIBBLE_RETURN_IF_ERROR(read_training(path, sources));
      found = true;
    }
  }
  if (found) return {};
  return not_found("card: expected the files of a run, got none ({})", path.string())
      .with_hint("name folders of gate, quantize and train, and JSON files of bench, eval and generate");
}

class Writer {
 public:
  explicit Writer(const CardOptions& options) : options_(options) {}

  Result<Card> write(const Sources& sources) {
    head(sources);
    architecture(sources);
    behaviour(sources.gates);
    performance(sources);
    quantization(sources.quantize);
    fidelity(sources.evals);
    training(sources.trainings);
    data(sources.data);
    serving(sources);
    limits();
    citation();
    if (!error_.ok()) return error_;
    return std::move(card_);
  }

 private:
  using Shown = std::string (*)(double);

  void put(std::string_view text) { card_.markdown += text; }

  // A word of a file, or anything else as JSON; "not measured" where the file has none.
  std::string value(const Source& source, const std::string& pointer) {
    const Json* json = find(source, pointer);
    return json == nullptr ? kNotMeasured : noted(word(*json), source.file, pointer);
  }
  // A number of a file, printed by `shown`. Anything else makes the card an error.
  std::string value(const Source& source, const std::string& pointer, Shown shown) {
    const Json* json = find(source, pointer);
    if (json == nullptr) return kNotMeasured;
    if (json->is_number()) return noted(shown(json->get<double>()), source.file, pointer);
    if (error_.ok()) {
      error_ = corrupt("card: {}: expected a number, got {} ({})", pointer, brief_json(*json), source.file.string());
    }
    return kNotMeasured;
  }
  static const Json* find(const Source& source, const std::string& pointer) {
    const Json::json_pointer at(pointer);
    const Json* json = source.json.contains(at) ? &source.json.at(at) : nullptr;
    return json == nullptr || json->is_null() ? nullptr : json;
  }
  std::string noted(std::string text, const Path& file, std::string pointer) {
    card_.values.push_back({text, file.string(), std::move(pointer)});
    return text;
  }

  static std::string word(const Json& json) { return json.is_string() ? json.get<std::string>() : dump(json); }
  static std::string percent(double x) { return fmt::format("{:.1f} %", 100 * x); }
  static std::string number(double x) { return fmt::format("{:.4g}", x); }
  static std::string megabytes(double x) { return fmt::format("{:.1f} MB", x / 1e6); }
  static std::string row(const std::vector<std::string>& cells) {
    return fmt::format("| {} |\n", fmt::join(cells, " | "));
  }
  static std::string rule(size_t cells) {
    std::string text = "|";
    for (size_t i = 0; i < cells; ++i) text += "---|";
    return text + "\n";
  }
  void section(const char* title, bool empty) {
    put(fmt::format("\n## {}\n\n", title));
    if (empty) put(fmt::format("{}\n", kNotMeasured));
  }

  void head(const Sources& sources) {
    put("---\n");
    if (!options_.base_model.empty()) put(fmt::format("base_model: {}\n", options_.base_model));
    put(fmt::format("license: {}\nlanguage: {}\nlibrary_name: nibble\ntags: [nvfp4, qwen3.5]\n---\n\n# {}\n",
                    options_.license, options_.language, options_.title));
    if (!options_.description.empty()) put("\n" + options_.description + "\n");
    if (!sources.gates.empty()) {
      put(fmt::format("\nMeasured with nibble {}.\n", value(sources.gates[0], "/run/nibble")));
    }
  }

  // Of the last checkpoint: the one that the card is about.
  void architecture(const Sources& sources) {
    section("Architecture", sources.configs.empty());
    if (sources.configs.empty()) return;
    const Source& config = sources.configs.back();
    const std::string at = member(config.json, "text_config").is_object() ? "/text_config" : "";
    const auto field = [&](const char* key) { return value(config, at + "/" + key); };
    put(fmt::format("* model type {}\n* layers {}: {}\n* hidden size {}, intermediate size {}, vocabulary {}\n",
                    value(config, "/model_type"), field("num_hidden_layers"), layer_kinds(config, at),
                    field("hidden_size"), field("intermediate_size"), field("vocab_size")));
    put(
        fmt::format("* attention heads {}, of keys and values {}, width {}\n"
                    "* heads of the delta rule: {} of keys, width {}; {} of values, width {}\n* positions {}\n",
                    field("num_attention_heads"), field("num_key_value_heads"), field("head_dim"),
                    field("linear_num_key_heads"), field("linear_key_head_dim"), field("linear_num_value_heads"),
                    field("linear_value_head_dim"), field("max_position_embeddings")));
    put(fmt::format("* parameters {}\n",
                    sources.quantize.empty() ? kNotMeasured : value(sources.quantize.back(), "/parameters")));
  }

  // "6 linear_attention, 2 full_attention"
  std::string layer_kinds(const Source& config, const std::string& at) {
    const Json* layers = find(config, at + "/layer_types");
    if (layers == nullptr || !layers->is_array()) return kNotMeasured;
    std::vector<std::pair<std::string, int64_t>> kinds;  // in the order in which they occur
    for (const Json& layer : *layers) {
      const std::string kind = word(layer);
      const auto same = std::find_if(kinds.begin(), kinds.end(), [&](const auto& item) { return item.first == kind; });
      if (same == kinds.end()) {
        kinds.emplace_back(kind, 1);
      } else {
        ++same->second;
      }
    }
    std::string text;
    for (const auto& [kind, count] : kinds) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, kind);
    return noted(text, config.file, at + "/layer_types");
  }

  void behaviour(const std::vector<Source>& gates) {
    section("Behaviour", gates.empty());
    if (gates.empty()) return;
    std::vector<std::string> titles = {"gate"};
    for (const Source& run : gates) titles.push_back(value(run, "/run/model"));
    titles.emplace_back("threshold");
    put(row(titles) + rule(titles.size()));
    for (const std::string& id : gate_ids(gates)) {
      std::vector<std::string> cells = {id};
      std::string threshold = "";
      for (const Source& run : gates) {
        const std::optional<size_t> at = gate_at(run, id);
        if (!at) {
          cells.emplace_back(kNotMeasured);
          continue;
        }
        const std::string base = fmt::format("/gates/{}", *at);
        const Json& gate = run.json["gates"][*at];
        const bool judged = member(gate, "verdict") != "not_judged";
        const Shown shown = member(gate, "metric") == "rate" ? percent : number;
        cells.push_back(judged ? value(run, base + "/value", shown) : kNotMeasured);
        if (threshold.empty()) {
          threshold = word(member(gate, "op")) + " " + value(run, base + "/threshold", shown);
        }
      }
      cells.push_back(threshold);
      put(row(cells));
    }
    std::vector<std::string> all = {"all cases"};
    for (const Source& run : gates) {
      all.push_back(value(run, "/overall/rate", percent) + " of " + value(run, "/overall/n"));
    }
    all.emplace_back("");
    put(row(all));
  }

  static std::vector<std::string> gate_ids(const std::vector<Source>& gates) {
    std::vector<std::string> ids;
    for (const Source& run : gates) {
      for (const Json& gate : run.json["gates"]) {
        const std::string id = word(member(gate, "id"));
        if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
      }
    }
    return ids;
  }

  static std::optional<size_t> gate_at(const Source& run, const std::string& id) {
    const Json& gates = run.json["gates"];
    for (size_t i = 0; i < gates.size(); ++i) {
      if (member(gates[i], "id") == id) return i;
    }
    return std::nullopt;
  }

  // A distribution of nothing has a p50, too.
  static bool timed(const Source& run, const char* what) {
    return member(member(member(run.json, "latency"), what), "n") != 0;
  }

  void performance(const Sources& sources) {
    section("Performance", sources.gates.empty() && sources.benches.empty() && sources.speeds.empty());
    if (!sources.gates.empty()) {
      put(row({"", "first token of an answer, p50 ms", "p95 ms", "cold, p50 ms", "warm, p50 ms", "growth over 20 turns",
               "decode tok/s", "memory", "on"}) +
          rule(9));
      for (const Source& run : sources.gates) {
        const bool grew = member(member(run.json, "latency"), "growth") != 0;
        put(row({value(run, "/run/model"), value(run, "/latency/ttfat_ms/p50", number),
                 value(run, "/latency/ttfat_ms/p95", number), value(run, "/latency/by_turn/0/p50", number),
                 timed(run, "warm_ttfat_ms") ? value(run, "/latency/warm_ttfat_ms/p50", number) : kNotMeasured,
                 grew ? value(run, "/latency/growth", number) : kNotMeasured,
                 value(run, "/latency/decode_tok_s/p50", number), value(run, "/run/memory_bytes", megabytes),
                 value(run, find(run, "/run/hardware") == nullptr ? "/run/machine" : "/run/hardware")}));
      }
    }
    for (const Source& run : sources.speeds) {
      put(fmt::format("\n{} as a client sees it, asked from {}:\n\n", value(run, "/run/model"),
                      value(run, "/run/machine")));
      put(row({"", "median", "unit", "95 % interval", "p95", "n"}) + rule(6));
      for (size_t i = 0; i < run.json["figures"].size(); ++i) {
        const std::string base = fmt::format("/figures/{}", i);
        const bool interval = find(run, base + "/ci/1") != nullptr;
        put(row({value(run, base + "/what"), value(run, base + "/value", number), value(run, base + "/unit"),
                 interval ? value(run, base + "/ci/0", number) + " to " + value(run, base + "/ci/1", number) : "",
                 find(run, base + "/p95") == nullptr ? "" : value(run, base + "/p95", number),
                 value(run, base + "/n")}));
      }
    }
    for (const Source& run : sources.benches) {
      put(fmt::format("\nOn {}, {} GB/s measured:\n\n", value(run, "/machine"), value(run, "/probe_gb_s", number)));
      put(row({"depth", "TTFT ms", "prefill tok/s", "decode tok/s", "of the bandwidth"}) + rule(5));
      for (size_t i = 0; i < run.json["points"].size(); ++i) {
        const std::string base = fmt::format("/points/{}", i);
        put(row({value(run, base + "/depth"), value(run, base + "/ttft_ms", number),
                 value(run, base + "/prefill_tok_s", number), value(run, base + "/decode_tok_s", number),
                 value(run, base + "/decode_share_of_probe", percent)}));
      }
    }
  }

  void quantization(const std::vector<Source>& runs) {
    section("Quantization", runs.empty());
    for (const Source& run : runs) {
      put(fmt::format(
          "* recipe {}, layout {}, {}\n* {} bits a weight over the quantized linears, {} with the head\n"
          "* {} before, {} after\n* relative squared error {}\n"
          "* calibrated on {} tokens of the set {}\n* left as they were: {}\n",
          value(run, "/recipe"), value(run, "/layout"), value(run, "/algo"), value(run, "/effective_bits", number),
          value(run, "/effective_bits_with_head", number), value(run, "/bytes_before", megabytes),
          value(run, "/bytes_after", megabytes), value(run, "/relative_error", number),
          value(run, "/calibration_tokens"), value(run, "/calibration_hash"), excluded(run)));
    }
  }

  std::string excluded(const Source& run) {
    const Json* patterns = find(run, "/exclude");
    if (patterns == nullptr || !patterns->is_array() || !patterns->empty()) return value(run, "/exclude");
    return noted("none by name", run.file, "/exclude");
  }

  void fidelity(const std::vector<Source>& runs) {
    section("Fidelity to BF16", runs.empty());
    if (runs.empty()) return;
    put(row({"", "mean KL", "p99 KL", "same top token", "tokens"}) + rule(5));
    for (const Source& run : runs) {
      const bool several = run.json.contains("models");
      for (size_t i = 0; i < (several ? run.json["models"].size() : 1); ++i) {
        const std::string base = several ? fmt::format("/models/{}", i) : "";
        put(row({value(run, base + "/b"), value(run, base + "/mean_kl", number), value(run, base + "/p99_kl", number),
                 value(run, base + "/top1", percent), value(run, base + "/tokens")}));
      }
    }
  }

  void training(const std::vector<Training>& runs) {
    section("Training", runs.empty());
    for (const Training& run : runs) {
      const Source settings{run.file, run.settings};
      put(fmt::format("* mode {}, {} conversations, {} epochs, learning rate {}, {}, batch {}, KL weight {}\n",
                      value(settings, "/mode"), value(settings, "/conversations"), value(settings, "/epochs"),
                      value(settings, "/lr", number), value(settings, "/schedule"), value(settings, "/batch"),
                      value(settings, "/kl", number)));
      put(
          fmt::format("* updates of {} micro-batches, sequences of at most {} tokens, of the set {}\n"
                      "* loss on {} rows, of {}\n* on {}\n",
                      value(settings, "/accumulate"), value(settings, "/max_length"), value(settings, "/data"),
                      value(settings, "/loss_rows"), value(settings, "/loss_kinds"), value(settings, "/machine")));
      const auto metric = [&](double x, const char* where) {
        return std::isfinite(x) ? noted(fmt::format("{:.4g}", x), run.file, where) : std::string(kNotMeasured);
      };
      const std::vector<train::StepRecord>& steps = run.metrics.steps;
      if (!steps.empty()) {
        put(fmt::format("* loss {} at the first step, {} at the last of {}\n",
                        metric(steps.front().loss, "steps/first/loss"), metric(steps.back().loss, "steps/last/loss"),
                        noted(std::to_string(steps.back().step), run.file, "steps/last/step")));
        double seconds = 0;
        int64_t memory = 0;
        for (const train::StepRecord& step : steps) {
          seconds += step.seconds;
          memory = std::max(memory, step.memory_bytes);
        }
        put(fmt::format("* hours of steps {}, memory at most {}\n", metric(seconds / 3600, "steps/sum/seconds"),
                        memory == 0
                            ? kNotMeasured
                            : noted(megabytes(static_cast<double>(memory)), run.file, "steps/max/memory_bytes")));
      }
      const std::vector<train::EvalRecord>& evals = run.metrics.evals;
      put(evals.empty()
              ? fmt::format("* validation {}\n", kNotMeasured)
              : fmt::format("* validation: cross-entropy {}, KL {}\n", metric(evals.back().ce, "evals/last/ce"),
                            metric(evals.back().kl, "evals/last/kl")));
    }
  }

  void data(const std::vector<Source>& manifests) {
    section("Data", manifests.empty());
    for (const Source& manifest : manifests) {
      put(fmt::format("Written by {}.\n\n", value(manifest, "/teacher")) + row({"category", "conversations"}) +
          rule(2));
      for (const auto& item : manifest.json["categories"].items()) {
        Json::json_pointer at = Json::json_pointer("/categories") / item.key();  // escapes what a name may hold
        if (item.value().is_object()) at /= "accepted";
        put(row({item.key(), value(manifest, at.to_string())}));
      }
    }
  }

  // docs/compatibility.md says how far each of these is known to work.
  void serving(const Sources& sources) {
    section("Serving", false);
    const Json none;
    const Json& layout = sources.quantize.empty() ? none : member(sources.quantize.back().json, "layout");
    put("```\nnibble serve DIR\nvllm serve DIR --language-model-only\n");
    if (layout == "modelopt") put("python -m sglang.launch_server --model-path DIR --quantization modelopt_fp4\n");
    if (layout.is_null()) put("python -m sglang.launch_server --model-path DIR\n");
    put("```\n\n");
    put(sources.gates.empty() ? "None of these was run for this card.\n"
                              : "Only the servers that are named below were run for this card.\n");
    for (const Source& run : sources.gates) {
      const bool own = member(member(member(run.json, "run"), "server"), "owned_by") == "nibble";
      put(fmt::format("\n{} was served by {} and asked with {}.\n", value(run, "/run/model"),
                      own ? "nibble" : "another server", value(run, "/run/params")));
    }
  }

  void limits() {
    section("Limits", false);
    put("* What the tables call \"not measured\" is not known.\n"
        "* The cases ask for one persona, one user and one city; other personas may behave otherwise.\n"
        "* Thinking was off where the parameters say so: answers that need long reasoning are worse without it.\n"
        "* A tool call must come in the dialect of the model's own chat template.\n");
    put(fmt::format("\n## Licence\n\n{}\n", options_.license));
  }

  void citation() {
    section("Citation", false);
    if (!options_.citation.empty()) return put(options_.citation + "\n");
    put("```\n@misc{" + key_of(options_.title) + ",\n  title = {" + options_.title + "},\n");
    if (!options_.base_model.empty()) put("  note = {Made from " + options_.base_model + "},\n");
    put("  howpublished = {Quantized and measured with nibble}\n}\n```\n");
  }
  static std::string key_of(const std::string& title) {
    std::string key;
    for (const char c : title) key += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    return key;
  }

  const CardOptions& options_;
  Card card_;
  Status error_;  // the first value that is not what it should be
};

}  // namespace

Result<Card> make_card(const std::vector<Path>& runs, const CardOptions& options) {
  Sources sources;
  for (const Path& path : runs) NIBBLE_RETURN_IF_ERROR(read_path(path, sources));
  return Writer(options).write(sources);
}

}  // namespace nibble::gate
