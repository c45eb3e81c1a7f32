#include "cli/command.h"
#include "cli/terminal.h"
#include "gate/divergence.h"
#include "gate/top_logprobs.h"
#include "tensor/device.h"
#include "text/chat_data.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path a, adapter, adapter_b, data, top_logprobs;
  std::vector<Path> b;
  std::string act, device = "cpu";
  int64_t limit = 0, top = 20;
  int threads = 0;
  bool as_served = false, json = false;
};

std::string described(const Path& model, const Path& adapter) {
  return adapter.empty() ? model.string() : model.string() + " with adapter " + adapter.string();
}

struct Measured {
  checkpoint::FormatSummary format;
  gate::Divergence divergence;
};

/// What one model adds to the document.
Json model_json(const Flags& flags, const Path& dir, const Measured& measured) {
  Json json = measured.divergence.json();
  json["b"] = dir.string();
  if (!flags.adapter_b.empty()) json["adapter_b"] = flags.adapter_b.string();
  json["format"] = measured.format.format;
  json["activations"] = measured.format.activations;
  return json;
}

/// One model: its figures at the root. Several: one object each under "models", the later ones with their difference
/// to the first.
Json to_json(const Flags& flags, const std::vector<Measured>& models) {
  if (models.size() == 1) return model_json(flags, flags.b.front(), models.front());
  Json list = Json::array();
  for (size_t i = 0; i < models.size(); ++i) {
    Json& json = list.emplace_back(model_json(flags, flags.b[i], models[i]));
    if (i == 0) continue;
    const gate::Difference apart = gate::difference(models[i].divergence, models[0].divergence);
    json["difference"] = {{"mean_kl", apart.mean_kl}, {"ci", {apart.interval.low, apart.interval.high}}};
  }
  return {{"models", std::move(list)}};
}

void print_model(const Flags& flags, const Path& dir, const Measured& measured) {
  const gate::Divergence& d = measured.divergence;
  const checkpoint::FormatSummary& format = measured.format;
  fmt::print("\n{}\n", described(dir, flags.adapter_b));
  fmt::print("{}", table({{"weights", format.format + ", activations " + format.activations},
                          {"KL to the reference", fmt::format("mean {:.6f} ± {:.6f}", d.mean_kl, d.standard_error),
                           fmt::format("median {:.6f}", d.median_kl), fmt::format("p99 {:.4f}", d.p99_kl)},
                          {"same top token", fmt::format("{:.2f} %", d.top1 * 100)},
                          {"perplexity", fmt::format("{:.4f} -> {:.4f}", d.perplexity_a, d.perplexity_b)}}));
}

void print_differences(const Flags& flags, const std::vector<Measured>& models) {
  fmt::print("\nmean KL beyond that of {}, with what 95 % of resampled conversations give\n", flags.b[0].string());
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 1; i < models.size(); ++i) {
    const gate::Difference apart = gate::difference(models[i].divergence, models[0].divergence);
    rows.push_back({flags.b[i].string(), fmt::format("{:+.6f}", apart.mean_kl),
                    fmt::format("[{:+.6f}, {:+.6f}]", apart.interval.low, apart.interval.high)});
  }
  fmt::print("{}", table(rows));
}

using Chats = std::vector<std::vector<int32_t>>;

/// The numerics of all models, and words for them.
Numeric numeric_of(const Flags& flags) {
  return flags.as_served || flags.device != "cpu" ? Numeric::bf16_act : Numeric::exact;
}
std::string computed(const Flags& flags) {
  if (flags.device != "cpu") return "on " + flags.device + " with activations in BF16";
  return flags.as_served ? "in f32 with inputs of products in BF16" : "in f32";
}

/// What --top-logprobs asks for, of A.
Status write_top(ThreadPool& pool, const Flags& flags, const OpenModel& a, const Chats& chats, Context* gpu) {
  ProgressBar bar("eval");
  Context cx(pool, flags.as_served ? Numeric::bf16_act : Numeric::exact);
  cx.cancel = interrupt_token();
  return gate::write_top_logprobs(cx, a.model->weights, chats, flags.top, flags.top_logprobs, bar.callback(), gpu);
}

void report_top(const Flags& flags, const Chats& chats) {
  size_t tokens = 0;
  for (const auto& chat : chats) tokens += chat.size();
  if (flags.json) {
    print_json({{"a", flags.a.string()},
                {"data", flags.data.string()},
                {"conversations", chats.size()},
                {"tokens", tokens},
                {"device", flags.device},
                {"numeric", name(numeric_of(flags))},
                {"top_logprobs", flags.top_logprobs.string()}});
    return;
  }
  fmt::print("{}: {} conversations, {} tokens of {}, computed {}\n", flags.top_logprobs.string(), chats.size(), tokens,
             flags.data.string(), computed(flags));
}

void report_models(const Flags& flags, const OpenModel& a, const Chats& chats, const std::vector<Measured>& models) {
  if (flags.json) {
    Json json = to_json(flags, models);
    json["a"] = flags.a.string();
    if (!a.model->adapter.empty()) json["adapter"] = flags.adapter.string();
    json["data"] = flags.data.string();
    json["conversations"] = chats.size();
    json["device"] = flags.device;
    json["numeric"] = name(flags.device == "cpu" ? Numeric::exact : Numeric::bf16_act);
    if (!flags.top_logprobs.empty()) json["top_logprobs"] = flags.top_logprobs.string();
    print_json(json);
    return;
  }
  fmt::print("against {}\n{} conversations, {} tokens of {}, computed {}\n", described(flags.a, flags.adapter),
             chats.size(), models.front().divergence.tokens, flags.data.string(),
             flags.device == "cpu" ? "in f32" : computed(flags));
  for (size_t i = 0; i < models.size(); ++i) print_model(flags, flags.b[i], models[i]);
  if (models.size() > 1) print_differences(flags, models);
}

Result<int> run(const Flags& flags) {
  if (flags.b.empty() && flags.top_logprobs.empty()) {
    return invalid_argument("eval: expected a model B to judge, got none")
        .with_hint("nibble eval A B --data chat.jsonl");
  }
  if (!flags.adapter_b.empty() && flags.b.size() != 1) {
    return invalid_argument("eval: --adapter-b belongs to one model, and there are {}", flags.b.size());
  }
  NIBBLE_TRY(device, parse_device(flags.device));
  std::unique_ptr<Stream> stream;
  if (device.is_cuda()) {
    NIBBLE_TRY(opened, Stream::open(device));
    stream = std::move(opened);
  }
  NIBBLE_TRY(a, open_model(flags.a, flags.adapter));
  std::vector<OpenModel> opened;
  std::vector<const model::Weights*> weights;
  for (const Path& dir : flags.b) {
    NIBBLE_TRY(b, open_model(dir, flags.adapter_b, flags.act));
    opened.push_back(std::move(b));
    weights.push_back(&opened.back().model->weights);
  }
  NIBBLE_TRY(chats, text::tokenize_chats(flags.data, *a.chat_template, *a.tokenizer, flags.limit));

  ThreadPool pool(flags.threads);
  Context cx(pool, Numeric::exact);
  cx.cancel = interrupt_token();
  std::optional<Context> gpu;
  if (stream != nullptr) gpu.emplace(pool, Numeric::bf16_act, *stream);
  Context* const on_gpu = gpu ? &*gpu : nullptr;
  if (!flags.top_logprobs.empty()) NIBBLE_RETURN_IF_ERROR(write_top(pool, flags, a, chats, on_gpu));
  if (flags.b.empty()) {
    report_top(flags, chats);
    return 0;
  }
  ProgressBar bar("eval");
  NIBBLE_TRY(divergences, gate::measure_divergence(cx, a.model->weights, weights, chats, bar.callback(), on_gpu));
  std::vector<Measured> models;
  for (size_t i = 0; i < opened.size(); ++i) models.push_back({opened[i].model->format, std::move(divergences[i])});
  report_models(flags, a, chats, models);
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("eval", "How far a model's predictions are from those of its reference");
  command->footer(
      "All models read the same conversations. For every token: the KL divergence from A's next-token distribution\n"
      "to B's over the whole vocabulary, and whether their most likely tokens agree. The mean hangs on few tokens;\n"
      "read it together with the median and p99. With several B, each is also compared with the first: the difference\n"
      "of the mean KL, and the interval it has when conversations are drawn anew (paired bootstrap).\n"
      "--top-logprobs writes A's likeliest next tokens after every token, one conversation a line,\n"
      "{\"ids\": […], \"top\": [[[id, log-probability], …], …]}: to hold another engine against the same file.\n\n"
      "  nibble eval models/tiny-voice out/tiny-voice-nvfp4 --data chat.jsonl\n"
      "  nibble eval models/tiny-voice out/max out/gptq --data chat.jsonl --act a4-token\n"
      "  nibble eval tiny.gguf --data chat.jsonl --top-logprobs top.jsonl\n"
      "  nibble eval models/tiny-voice out/tiny-voice-nvfp4 --data chat.jsonl --device cuda");
  command->add_option("A", flags->a, "the reference: a checkpoint folder, or a GGUF file")->required();
  command->add_option("B", flags->b, "the models to judge: checkpoint folders, or GGUF files");
  add_adapter_flag(*command, flags->adapter, "--adapter", "A");
  add_adapter_flag(*command, flags->adapter_b, "--adapter-b", "B");
  add_act_flag(*command, flags->act, "every B");
  command->add_option("--data", flags->data, "conversations as chat JSONL")->required();
  command->add_option("--limit", flags->limit, "use the first N conversations (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-logprobs", flags->top_logprobs,
                      "write A's likeliest next tokens to this file; B may then be absent");
  command->add_option("--top", flags->top, "how many of them after each token")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->needs("--top-logprobs")
      ->capture_default_str();
  command
      ->add_flag("--as-served", flags->as_served,
                 "compute them as serve and chat do: inputs of products rounded to BF16")
      ->needs("--top-logprobs");
  command->add_option("--device", flags->device, "where all models compute: cpu, cuda or cuda:N")
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
