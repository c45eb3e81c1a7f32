#include <algorithm>
#include <map>

#include "cli/quantize_report.h"
#include "cli/terminal.h"
#include "io/html_page.h"
#include "io/svg_plot.h"

namespace nibble::cli {
namespace {

// "model.layers.3.mlp.up_proj" -> (3, "mlp.up_proj"); -1 for what lies outside the layers.
std::pair<int64_t, std::string> place_of(const std::string& module) {
  constexpr std::string_view kLayers = "layers.";
  const size_t at = module.find(kLayers);
  if (at == std::string::npos) return {-1, module};
  const size_t number = at + kLayers.size(), dot = module.find('.', number);
  if (dot == std::string::npos) return {-1, module};
  return {std::strtoll(module.c_str() + number, nullptr, 10), module.substr(dot + 1)};
}

std::string figure(const Plot& plot) {
  return plot.series.empty() ? std::string() : "<figure>\n" + svg_plot(plot) + "</figure>\n";
}

// A plot for the linears of each part of a layer, a line for each of them.
std::string by_layer(const Json& tensors, const char* key, const char* title) {
  std::map<std::string, std::map<std::string, PlotSeries>> parts;
  for (const Json& tensor : tensors) {
    const auto [layer, kind] = place_of(tensor["module"].get<std::string>());
    if (layer < 0 || !tensor.contains(key)) continue;
    const size_t dot = kind.find('.');
    PlotSeries& series = parts[kind.substr(0, dot)][kind];
    series.label = dot == std::string::npos ? kind : kind.substr(dot + 1);
    series.points.emplace_back(static_cast<double>(layer), tensor[key].get<double>());
  }
  std::string figures;
  for (auto& [part, kinds] : parts) {
    Plot plot;
    plot.title = fmt::format("{}: {}", title, part);
    plot.x_label = "layer";
    for (auto& [kind, series] : kinds) {
      std::sort(series.points.begin(), series.points.end());
      plot.series.push_back(std::move(series));
    }
    figures += figure(plot);
  }
  return figures;
}

std::string against_bits(const Json& mixed) {
  if (mixed.is_null()) return {};
  Plot plot;
  plot.title = "sum of sensitivities against bits a weight";
  plot.x_label = "bits";
  plot.log_y = true;
  plot.series.push_back({"least at this budget", mixed["front"].get<std::vector<std::pair<double, double>>>()});
  plot.series.push_back({"chosen", {{mixed["bits"].get<double>(), mixed["score"].get<double>()}}});
  return figure(plot);
}

std::vector<std::pair<std::string, std::string>> facts(const Json& report) {
  const auto number = [&](const char* key) { return report[key].get<double>(); };
  std::vector<std::pair<std::string, std::string>> rows = {
      {"recipe", report["recipe"].get<std::string>()},
      {"format", report["algo"].get<std::string>() + ", layout " + report["layout"].get<std::string>()},
      {"size", human_bytes(report["bytes_before"].get<uint64_t>()) + " -> " +
                   human_bytes(report["bytes_after"].get<uint64_t>())},
      {"bits a weight", fmt::format("{:.3f} of the linears, {:.3f} with the head", number("effective_bits"),
                                    number("effective_bits_with_head"))},
      {"read per token", human_bytes(report["bytes_per_token"].get<uint64_t>())},
      {"roofline",
       fmt::format("{:.0f} tok/s on a GB10, {:.0f} on an H200", report["roofline_tok_s"]["gb10"].get<double>(),
                   report["roofline_tok_s"]["h200"].get<double>())},
      {"squared error", fmt::format("{:.6f} of the weights' energy", number("relative_error"))},
      {"calibrated on", fmt::format("{} tokens", report["calibration_tokens"].get<int64_t>())}};
  const Json& d = report["divergence"];
  if (d.is_null()) {
    rows.emplace_back("KL to the source", "not measured");
    return rows;
  }
  const auto measured = [&](const char* key) { return d[key].get<double>(); };
  rows.emplace_back(
      "KL to the source",
      fmt::format("mean {:.6f} ± {:.6f}, median {:.6f}, p99 {:.4f}, over {} held-out tokens", measured("mean_kl"),
                  measured("standard_error"), measured("median_kl"), measured("p99_kl"), d["tokens"].get<int64_t>()));
  rows.emplace_back("same top token", fmt::format("{:.2f} %", 100 * measured("top1")));
  rows.emplace_back("perplexity", fmt::format("{:.4f} -> {:.4f}", measured("perplexity_a"), measured("perplexity_b")));
  return rows;
}

std::string tensor_table(const Json& tensors) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& t : tensors) {
    const auto optional = [&](const char* key) {
      return t.contains(key) ? fmt::format("{:.3g}", t[key].get<double>()) : std::string("–");
    };
    rows.push_back(
        {t["module"].get<std::string>(), t["format"].get<std::string>(), t["inputs"].get<std::string>(),
         fmt::format("{:.3f}", t["bits"].get<double>()), optional("relative_error"), optional("max_error"),
         optional("output_error"),
         t.contains("sensitivity") ? fmt::format("{:.3g}", t["sensitivity"][0].get<double>()) : std::string("–")});
  }
  return html_table(
      {"module", "format", "inputs", "bits", "relative error", "max error", "output error", "sensitivity in 4 bits"},
      rows);
}

}  // namespace

std::string report_html(const Json& report) {
  const Json& tensors = report["tensors"];
  return html_page(report["source"].get<std::string>() + " in " + report["recipe"].get<std::string>(),
                   fmt::format("<section>\n{}</section>\n<h2>Plots</h2>\n<div class=\"grid\">\n{}{}{}</div>\n"
                               "<h2>Tensors</h2>\n{}",
                               html_facts(facts(report)),
                               by_layer(tensors, "relative_error", "squared error of the weights, relative"),
                               by_layer(tensors, "output_error", "squared error of the outputs, relative"),
                               against_bits(report["mixed"]), tensor_table(tensors)));
}

}  // namespace nibble::cli
