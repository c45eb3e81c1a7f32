#include "quantize/quantize.h"

#include "base/log.h"
#include "checkpoint/adapter.h"
#include "cli/quantize_flags.h"
#include "cli/quantize_report.h"
#include "cli/terminal.h"
#include "quantize/target.h"

namespace nibble::cli {
namespace {

// What takes statistics of the inputs, layer by layer.
Status check_solvers(const QuantizeFlags& flags) {
  const quantize::Recipe& recipe = flags.options.recipe;
  if (flags.budget.set() || recipe.effective_bits) {
    return unsupported("quantize: {}: a search over formats needs auto_mixed", recipe.name);
  }
  const bool solved = recipe.scales == quantize::Scales::local_hessian ||
                      recipe.transform != quantize::Transform::none || recipe.rounding != quantize::Rounding::nearest;
  return solved ? unsupported("quantize: {}: needs the solvers of calibrated strategies", recipe.name) : Status();
}

Status calibrate(QuantizeFlags& flags, ThreadPool& pool) {
  if (!flags.rounds_inputs()) return {};
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter));
  Context cx(pool, Numeric::exact);
  cx.cancel = flags.options.cancel;
  NIBBLE_TRY(amax, calibrated_amax(cx, open, flags.calib, flags.samples));
  flags.options.input_amax = std::move(amax);
  return {};
}

Result<int> run(QuantizeFlags flags) {
  if (flags.recipe == "list") {
    fmt::print("{}", quantize::recipe_list());
    return 0;
  }
  NIBBLE_RETURN_IF_ERROR(complete(flags));
  flags.options.cancel = interrupt_token();
  ThreadPool pool(flags.threads);
  if (!flags.adapter.empty()) {
    NIBBLE_TRY(adapter, checkpoint::Adapter::open(flags.adapter));
    NIBBLE_TRY(merged, checkpoint::merged_tensors(pool, std::make_shared<const checkpoint::Adapter>(std::move(adapter)),
                                                  flags.dir));
    flags.options.replace = std::move(merged);
  }
  {
    NIBBLE_TRY(job, quantize::plan_folder(flags.dir, flags.options));
    NIBBLE_RETURN_IF_ERROR(quantize::check_target(job.plan, flags.options.layout, flags.target));
    if (flags.plan) {
      flags.json ? print_json(plan_json(job.plan)) : print_plan(job.plan);
      return 0;
    }
  }
  NIBBLE_RETURN_IF_ERROR(check_solvers(flags));
  NIBBLE_TRY(more, other_inputs(flags));
  NIBBLE_TRY(key, quantize::job_key(flags.dir, flags.options, more));
  NIBBLE_TRY(folder, quantize::PartialFolder::open(flags.output, key));
  if (folder.resumed()) spdlog::info("{}: goes on with what an earlier run left", flags.output.string());
  NIBBLE_RETURN_IF_ERROR(calibrate(flags, pool));
  ProgressBar bar("quantize", true);
  flags.options.progress = bar.callback();
  NIBBLE_TRY(report, quantize::quantize_folder(flags.dir, folder, flags.options, pool));
  flags.json ? print_json(report_json(report, flags)) : print_report(report, flags);
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command =
      app.add_subcommand("quantize", "BF16 -> NVFP4 and FP8, in the layouts that vLLM, SGLang and TensorRT-LLM load");
  add_quantize_flags(*command, *flags);
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
