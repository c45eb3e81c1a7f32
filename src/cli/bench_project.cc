#include "cli/bench_project.h"

#include "cli/terminal.h"
#include "cli/version.h"

namespace nibble::cli {
namespace {

void print_report(const gate::Projection& p, const std::string& what) {
  const gate::Machine& m = p.machine;
  fmt::print("{}\nprojected for {}, not measured\n", what, m.title);
  fmt::print("memory gives {:.0f} GB/s ({})\n", m.bytes_per_second * 1e-9, m.bytes_source);
  fmt::print("{} multiprocessors at {:.2f} GHz; a token reads {} of weights\n\n", m.multiprocessors, m.clock_hz * 1e-9,
             human_bytes(p.weight_bytes_per_token));

  std::vector<std::vector<std::string>> rows = {
      {"weights", "millions", "bytes", "instructions a weight for 8 / 16 / 32 / 64 sequences", "there are"}};
  for (const gate::ProjectedFormat& f : p.formats) {
    rows.push_back(
        {f.name, fmt::format("{:.1f}", static_cast<double>(f.weights) * 1e-6), human_bytes(f.bytes),
         fmt::format("{:.1f} / {:.1f} / {:.1f} / {:.1f}", f.needed[0], f.needed[1], f.needed[2], f.needed[3]),
         fmt::format("{:.1f}", f.available)});
  }
  fmt::print("{}\n", table(rows));

  rows = {
      {"depth", "sequences", "GB a step", "bytes ms", "instructions ms", "ceiling tok/s", "share", "projected tok/s"}};
  for (const gate::ProjectedStep& s : p.speech) {
    rows.push_back({std::to_string(s.depth), std::to_string(s.sequences),
                    fmt::format("{:.3f}", static_cast<double>(s.bytes) * 1e-9), fmt::format("{:.2f}", s.bytes_ms),
                    fmt::format("{:.2f}", s.instructions_ms), fmt::format("{:.1f}", s.ceiling_tok_s),
                    fmt::format("{:.3f}", s.share), fmt::format("{:.1f}", s.tok_s)});
  }
  fmt::print("{}share of the ceiling: {}\n\n", table(rows), p.share_source);

  rows = {{"prompt", "floor ms", "tok/s at most"}};
  for (const gate::ProjectedPrompt& s : p.prompts) {
    rows.push_back({std::to_string(s.tokens), fmt::format("{:.2f}", s.floor_ms), fmt::format("{:.0f}", s.most_tok_s)});
  }
  fmt::print("{}products with weights in {}, {}\n", table(rows), p.products, m.flop_source);
}

}  // namespace

void add_project_bench_flags(CLI::App& command, ProjectBenchFlags& flags) {
  auto* project = command.add_option("--project", flags.machine,
                                     "run nothing: what bytes and instructions say about a machine, gb10 or h200");
  project->check([](const std::string& name) {
    return gate::find_machine(name) != nullptr ? std::string() : "expected gb10 or h200, got " + name;
  });
  auto* share = command.add_option("--share", flags.share, "the share of its ceiling that a step is taken to reach")
                    ->check(CLI::Range(0.01, 1.0))
                    ->needs(project);
  command
      .add_option("--measured", flags.measured,
                  "the shares that this report reached: what bench --device cuda --json printed")
      ->needs(project)
      ->excludes(share);
}

Result<int> bench_project(const ProjectBenchFlags& flags, gate::ProjectionOptions options,
                          const checkpoint::LoadedModel& model, const std::string& what, bool json) {
  if (flags.share > 0) {
    options.share = flags.share;
  } else if (!flags.measured.empty()) {
    NIBBLE_TRY(text, read_file(flags.measured));
    NIBBLE_TRY(report, parse_json(text, flags.measured.string()));
    auto shares = gate::reached_shares(report);
    if (!shares.ok()) {
      return corrupt("{}: {}", flags.measured.string(), shares.status().message());
    }
    options.reached = std::move(*shares);
    options.reached_source = flags.measured.string();
  } else {
    options.reached = gate::default_reached();
    options.reached_source = gate::kDefaultReachedSource;
  }
  NIBBLE_TRY(projection, gate::project(model.weights, *gate::find_machine(flags.machine), options));
  if (json) {
    Json out = projection.json();
    out["model"] = what;
    out["version"] = kVersion;
    print_json(out);
  } else {
    print_report(projection, what);
  }
  return 0;
}

}  // namespace nibble::cli
