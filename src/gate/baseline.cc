#include "gate/baseline.h"

#include <fmt/format.h>

#include <algorithm>

#include "gate/gate_unit.h"
#include "gate/run_files.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr Word<Verdict> kVerdicts[] = {{"pass", Verdict::pass},
                                       {"fail", Verdict::fail},
                                       {"inconclusive", Verdict::inconclusive},
                                       {"not_judged", Verdict::not_judged}};

double share(int64_t k, int64_t n) {
  return n == 0 ? 0 : static_cast<double>(k) / static_cast<double>(n);
}

Status read_gate(const Json& json, const std::string& where, Baseline& baseline) {
  ObjectReader reader(json, where);
  std::string id;
  Verdict verdict = Verdict::not_judged;
  for (const char* key : {"id", "verdict", "plays"}) reader.require(key);
  reader.text("id", id);
  reader.word("verdict", kVerdicts, verdict);
  const Json* plays = reader.value("plays");
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (!plays->is_object()) return corrupt("{}: plays: expected an object, got {}", where, plays->type_name());
  for (const auto& play : plays->items()) {
    if (!play.value().is_boolean()) return corrupt("{}: {}: expected true or false", where, play.key());
    baseline.plays[id][play.key()] = play.value().get<bool>();
  }
  baseline.verdicts[id] = verdict;
  return {};
}

}  // namespace

Result<Baseline> baseline_of(const Recipe& recipe, const Records& records, const Report& report, int repeats) {
  Baseline baseline;
  baseline.recipe = recipe.name;
  if (const Json* model = find_value(report.run, "model")) baseline.model = model->get<std::string>();
  if (const Json* started = find_value(report.run, "started")) baseline.started = started->get<std::string>();
  baseline.ttfat_ms = report.latency.ttfat_ms;
  for (const GateResult& result : report.gates) baseline.verdicts[result.gate.id] = result.verdict;
  NIBBLE_RETURN_IF_ERROR(
      for_each_record(recipe, records, repeats, [&](const Case& one, const CaseRecord& record) -> Status {
        for (const Gate& gate : recipe.gates) {
          if (is_latency_gate(gate.id)) continue;
          const std::optional<bool> passed = passes_gate(gate.id, one, record);
          if (passed) baseline.plays[gate.id][fmt::format("{}#{}", record.id, record.repeat)] = *passed;
        }
        return {};
      }));
  return baseline;
}

Status write_baseline(const Path& file, const Baseline& baseline) {
  Json gates = Json::array();
  for (const auto& [id, verdict] : baseline.verdicts) {
    const auto plays = baseline.plays.find(id);
    gates.push_back({{"id", id},
                     {"verdict", text_of(kVerdicts, verdict)},
                     {"plays", plays == baseline.plays.end() ? Json(Json::object()) : Json(plays->second)}});
  }
  const Json json = {{"schema", 1},
                     {"recipe", baseline.recipe},
                     {"model", baseline.model},
                     {"started", baseline.started},
                     {"ttfat_ms", {{"p50", baseline.ttfat_ms.p50}, {"mad", baseline.ttfat_ms.mad}}},
                     {"gates", std::move(gates)}};
  return write_file(file, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<Baseline> read_baseline(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  NIBBLE_TRY(json, parse_json(text, file.string(), {.max_keys = 1 << 20, .max_bytes = kMaxFileBytes}));
  ObjectReader reader(json, file.string());
  Baseline baseline;
  int schema = 0;
  for (const char* key : {"schema", "gates"}) reader.require(key);
  reader.whole_number("schema", 1, 1, schema);
  reader.text("recipe", baseline.recipe);
  reader.text("model", baseline.model);
  reader.text("started", baseline.started);
  const Json* ttfat = reader.value("ttfat_ms");
  const Json* gates = reader.value("gates");
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (ttfat != nullptr) {
    ObjectReader fields(*ttfat, file.string() + ": ttfat_ms");
    fields.number("p50", 0, 1e12, baseline.ttfat_ms.p50);
    fields.number("mad", 0, 1e12, baseline.ttfat_ms.mad);
    NIBBLE_RETURN_IF_ERROR(fields.finish());
  }
  if (!gates->is_array()) return corrupt("{}: gates: expected a list, got {}", file.string(), gates->type_name());
  for (const Json& gate : *gates) NIBBLE_RETURN_IF_ERROR(read_gate(gate, file.string() + ": gates", baseline));
  return baseline;
}

BaselineComparison compare_with_baseline(const Baseline& then, const Baseline& now) {
  constexpr double kSignificant = 0.05, kDrop = 0.02, kSlower = 1.1, kDeviations = 3;
  BaselineComparison result;
  std::vector<double> p;
  for (const auto& [id, plays] : then.plays) {
    BaselineDelta& delta = result.gates.emplace_back();
    delta.gate = id;
    const auto found = now.plays.find(id);
    for (const auto& [play, passed] : plays) {
      const bool there = found != now.plays.end() && found->second.contains(play);
      result.lost += !there;
      if (!there) continue;
      const bool passes = found->second.at(play);
      ++delta.n;
      delta.then += passed;
      delta.now += passes;
      delta.fixed += passes && !passed;
      delta.broken += passed && !passes;
    }
    if (found != now.plays.end()) {
      result.added += std::count_if(found->second.begin(), found->second.end(),
                                    [&plays = plays](const auto& play) { return !plays.contains(play.first); });
    }
    delta.p = mcnemar_exact(delta.fixed, delta.broken);
    p.push_back(delta.p);
  }
  p = holm(std::move(p));
  for (size_t i = 0; i < result.gates.size(); ++i) {
    BaselineDelta& delta = result.gates[i];
    delta.p_holm = p[i];
    const auto was = then.verdicts.find(delta.gate), is = now.verdicts.find(delta.gate);
    const bool fell = was != then.verdicts.end() && was->second == Verdict::pass && is != now.verdicts.end() &&
                      is->second == Verdict::fail;
    const bool dropped = delta.p_holm < kSignificant && share(delta.then - delta.now, delta.n) >= kDrop;
    delta.regressed = fell || dropped;
    if (!delta.regressed) continue;
    result.regressions.push_back(fmt::format("{}: {:.1f} % then, {:.1f} % now (p {:.2g}{})", delta.gate,
                                             100 * share(delta.then, delta.n), 100 * share(delta.now, delta.n),
                                             delta.p_holm, fell ? ", passed then" : ""));
  }
  result.ttfat_then_ms = then.ttfat_ms.p50;
  result.ttfat_now_ms = now.ttfat_ms.p50;
  result.slower = result.ttfat_then_ms > 0 && result.ttfat_now_ms > kSlower * result.ttfat_then_ms &&
                  result.ttfat_now_ms > result.ttfat_then_ms + kDeviations * then.ttfat_ms.mad;
  if (result.slower) {
    result.regressions.push_back(fmt::format("first token of an answer: {:.0f} ms then, {:.0f} ms now",
                                             result.ttfat_then_ms, result.ttfat_now_ms));
  }
  return result;
}

std::string to_text(const BaselineComparison& comparison) {
  std::string text = fmt::format("{:<18}{:>6}{:>9}{:>9}{:>7}{:>8}{:>9}\n", "against baseline", "n", "then", "now",
                                 "fixed", "broken", "Holm p");
  for (const BaselineDelta& delta : comparison.gates) {
    if (delta.n == 0) continue;
    text += fmt::format("{:<18}{:>6}{:>7.1f} %{:>7.1f} %{:>7}{:>8}{:>9.3g}{}\n", delta.gate, delta.n,
                        100 * share(delta.then, delta.n), 100 * share(delta.now, delta.n), delta.fixed, delta.broken,
                        delta.p_holm, delta.regressed ? "  regression" : "");
  }
  if (comparison.slower) {
    text += fmt::format("slower: first token of an answer {:.0f} ms then, {:.0f} ms now\n", comparison.ttfat_then_ms,
                        comparison.ttfat_now_ms);
  }
  if (comparison.lost + comparison.added > 0) {
    text += fmt::format("not compared: {} plays of the baseline, {} of this run\n", comparison.lost, comparison.added);
  }
  return text;
}

}  // namespace nibble::gate
