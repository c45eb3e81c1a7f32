#include "cli/command.h"
#include "cli/terminal.h"
#include "gate/divergence.h"
#include "text/chat_data.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path a, b, adapter, adapter_b, data;
  int64_t limit = 0;
  int threads = 0;
  bool json = false;
};

std::string described(const Path& model, const Path& adapter) {
  return adapter.empty() ? model.string() : model.string() + " with adapter " + adapter.string();
}

Result<int> run(const Flags& flags) {
  NIBBLE_TRY(a, open_model(flags.a, flags.adapter));
  NIBBLE_TRY(b, open_model(flags.b, flags.adapter_b));
  NIBBLE_TRY(chats, text::tokenize_chats(flags.data, *a.chat_template, *a.tokenizer, flags.limit));

  ThreadPool pool(flags.threads);
  Context cx(pool, Numeric::exact);
  cx.cancel = interrupt_token();
  ProgressBar bar("eval");
  NIBBLE_TRY(d, gate::measure_divergence(cx, a.model->weights, b.model->weights, chats, bar.callback()));
  if (flags.json) {
    Json json = d.json();
    json["a"] = flags.a.string();
    json["b"] = flags.b.string();
    if (!a.model->adapter.empty()) json["adapter"] = flags.adapter.string();
    if (!b.model->adapter.empty()) json["adapter_b"] = flags.adapter_b.string();
    json["data"] = flags.data.string();
    json["conversations"] = chats.size();
    json["numeric"] = name(cx.numeric);
    print_json(json);
    return 0;
  }
  fmt::print("{} against {}\n", described(flags.b, flags.adapter_b), described(flags.a, flags.adapter));
  fmt::print("{} conversations, {} tokens of {}, f32 activations\n\n", chats.size(), d.tokens, flags.data.string());
  fmt::print("{}", table({{"KL to the reference", fmt::format("mean {:.6f} ± {:.6f}", d.mean_kl, d.standard_error),
                           fmt::format("median {:.6f}", d.median_kl), fmt::format("p99 {:.4f}", d.p99_kl)},
                          {"same top token", fmt::format("{:.2f} %", d.top1 * 100)},
                          {"perplexity", fmt::format("{:.4f} -> {:.4f}", d.perplexity_a, d.perplexity_b)}}));
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("eval", "How far a model's predictions are from those of its reference");
  command->footer(
      "Both models read the same conversations. For every token: the KL divergence from A's next-token distribution\n"
      "to B's over the whole vocabulary, and whether their most likely tokens agree. The mean hangs on few tokens;\n"
      "read it together with the median and p99.\n\n"
      "  nibble eval models/tiny-voice out/tiny-voice-nvfp4 --data chat.jsonl");
  command->add_option("A", flags->a, "the reference: a checkpoint folder")->required();
  command->add_option("B", flags->b, "the model to judge: a checkpoint folder")->required();
  add_adapter_flag(*command, flags->adapter, "--adapter", "A");
  add_adapter_flag(*command, flags->adapter_b, "--adapter-b", "B");
  command->add_option("--data", flags->data, "conversations as chat JSONL")->required();
  command->add_option("--limit", flags->limit, "use the first N conversations (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--threads", flags->threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
