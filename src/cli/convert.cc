#include "checkpoint/convert_layout.h"
#include "checkpoint/gguf_export.h"
#include "checkpoint/gguf_unpack.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "io/gguf.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path input, output;
  std::string format, gguf_type, name;
  int threads = 0;
  bool json = false;
};

constexpr const char* matrices_name(checkpoint::GgufMatrices matrices) {
  return matrices == checkpoint::GgufMatrices::bf16   ? "bf16"
         : matrices == checkpoint::GgufMatrices::q8_0 ? "q8_0"
                                                      : "nvfp4";
}

Result<int> to_gguf(const Flags& flags, ThreadPool& pool) {
  checkpoint::GgufExportOptions options;
  if (!flags.gguf_type.empty()) options.matrices = checkpoint::gguf_matrices_named(flags.gguf_type);
  options.name = flags.name.empty() ? folder_name(flags.input) : flags.name;
  options.pool = &pool;
  options.cancel = interrupt_token();
  ProgressBar bar("convert", true);
  options.progress = bar.callback();
  NIBBLE_TRY(made, checkpoint::export_gguf(flags.input, flags.output, options));
  if (flags.json) {
    Json types = Json::object();
    for (const auto& [type, count] : made.types) types[type] = count;
    print_json({{"output", flags.output.string()},
                {"format", flags.format},
                {"gguf_type", matrices_name(made.matrices)},
                {"bytes", made.bytes},
                {"tensors", types},
                {"notes", made.notes}});
    return 0;
  }
  std::vector<std::string> parts;
  for (const auto& [type, count] : made.types) parts.push_back(fmt::format("{} {}", count, type));
  fmt::print("{}: {} of {} tensors\n", flags.output.string(), human_bytes(made.bytes), fmt::join(parts, ", "));
  for (const std::string& note : made.notes) fmt::print("note: {}\n", note);
  return 0;
}

Result<int> from_gguf(const Flags& flags, ThreadPool& pool) {
  NIBBLE_TRY(folder, OutputFolder::create(flags.output));
  checkpoint::LoadOptions options;
  options.pool = &pool;
  options.cancel = interrupt_token();
  ProgressBar bar("convert", true);
  options.progress = bar.callback();
  NIBBLE_TRY(made, checkpoint::unpack_gguf(flags.input, folder.path(), options));
  NIBBLE_RETURN_IF_ERROR(folder.commit());
  if (flags.json) {
    print_json({{"output", flags.output.string()},
                {"format", flags.format},
                {"tensors", made.tensors},
                {"bytes", made.bytes},
                {"decoded", made.decoded},
                {"kept", made.kept}});
    return 0;
  }
  fmt::print("{}: {} in {} tensors\n", flags.output.string(), human_bytes(made.bytes), made.tensors);
  if (made.decoded > 0)
    fmt::print("note: {} matrices of block formats were decoded and rounded to BF16\n", made.decoded);
  return 0;
}

Result<int> to_layout(const Flags& flags, ThreadPool& pool) {
  checkpoint::ConvertOptions options;
  options.pool = &pool;
  options.cancel = interrupt_token();
  ProgressBar bar("convert", true);
  options.progress = bar.callback();
  NIBBLE_TRY(made, checkpoint::convert_layout(flags.input, flags.output, *checkpoint::target_layout_named(flags.format),
                                              options));
  if (flags.json) {
    print_json({{"output", flags.output.string()},
                {"format", flags.format},
                {"algo", made.algo},
                {"linears", made.linears},
                {"bytes", made.bytes},
                {"notes", made.notes}});
    return 0;
  }
  fmt::print("{}: {} linears, {}{}\n", flags.output.string(), made.linears, human_bytes(made.bytes),
             made.algo.empty() ? " in BF16" : ", " + made.algo);
  for (const std::string& note : made.notes) fmt::print("note: {}\n", note);
  return 0;
}

Result<int> run(const Flags& flags) {
  ThreadPool pool(flags.threads);
  if (flags.format != "gguf" && (!flags.gguf_type.empty() || !flags.name.empty())) {
    return invalid_argument("convert: --gguf-type and --name belong to --format gguf");
  }
  const bool file = is_gguf(flags.input);
  if (file && flags.format == "bf16") return from_gguf(flags, pool);
  if (file) {
    return invalid_argument("convert: expected a checkpoint folder, got a GGUF file ({})", flags.input.string())
        .with_hint("--format bf16 makes a folder of it");
  }
  return flags.format == "gguf" ? to_gguf(flags, pool) : to_layout(flags, pool);
}

}  // namespace

void add_convert(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("convert", "A checkpoint in another layout: ModelOpt's, GGUF, BF16, …");
  command->footer(
      "Codes and scales of NVFP4 stay as they are between the quantized layouts and into GGUF; bf16 holds what they\n"
      "mean, rounded. From a BF16 folder to a GGUF file and back every tensor is the same, bit for bit "
      "(docs/gguf.md).\n"
      "The input is not changed.\n\n"
      "  nibble convert OUT --format compressed-tensors --output OUT-CT\n"
      "  nibble convert models/tiny-voice --format gguf --gguf-type q8_0 --output tiny-q8.gguf\n"
      "  nibble convert tiny.gguf --format bf16 --output tiny-again");
  command->add_option("INPUT", flags->input, "a checkpoint folder, or a GGUF file")->required();
  command
      ->add_option("--format", flags->format,
                   "modelopt or compressed-tensors: of a quantized folder; bf16: a folder in full precision, of a\n"
                   "quantized one or of a GGUF file; gguf: a GGUF file")
      ->required()
      ->check(CLI::IsMember({"modelopt", "compressed-tensors", "bf16", "gguf"}));
  command
      ->add_option("--gguf-type", flags->gguf_type,
                   "matrices in bf16, q8_0 or, of an NVFP4 checkpoint, nvfp4 (default: nvfp4 of one, else bf16)")
      ->check(CLI::IsMember({"bf16", "q8_0", "nvfp4"}));
  command->add_option("--output", flags->output, "the file or folder to write")->required();
  command->add_option("--name", flags->name, "general.name of the GGUF file (default: the folder's name)");
  command->add_option("--threads", flags->threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
