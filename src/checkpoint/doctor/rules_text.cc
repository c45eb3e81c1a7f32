#include "checkpoint/doctor/rules_text.h"

#include <algorithm>

#include "checkpoint/doctor/released.h"
#include "checkpoint/json_fields.h"
#include "text/chat_template.h"
#include "text/dialect.h"

namespace nibble::checkpoint::doctor {
namespace {

Evidence in_file(const Folder& folder, const char* file, const char* key) {
  const Json* json = folder.json(file);
  return {file, key, json == nullptr ? "no such file" : shown(find_value(*json, key))};
}

// Readers under transformers 5 have a class for the family; under Qwen2Tokenizer they rebuild the pattern of Qwen2,
// whatever tokenizer.json holds (run with 5.17). Readers beside transformers 4 have only the classes of Qwen2, which
// take tokenizer.json as it is there, and a processor of the wrapped form insists on one of those.
bool knows_family_tokenizer(Reader reader) {
  return reader == Reader::transformers5 || reader == Reader::compressed_tensors;
}

const char* tokenizer_class(Reader reader) {
  return knows_family_tokenizer(reader) ? "Qwen3_5Tokenizer" : "Qwen2Tokenizer";
}

bool reads_tokenizer(Reader reader, const std::string& name, bool wrapped) {
  const bool generic = name == "PreTrainedTokenizerFast";
  if (knows_family_tokenizer(reader)) return generic || name.starts_with("Qwen3_5Token") || name == "TokenizersBackend";
  return name.starts_with("Qwen2Token") || (generic && !wrapped);
}

// Templates of the folder: that of the file, and that of tokenizer_config.json.
const std::string* template_of_config(const Folder& folder) {
  const Json* config = folder.json(kTokenizerConfig);
  const Json* value = config == nullptr ? nullptr : find_value(*config, "chat_template");
  return value != nullptr && value->is_string() ? value->get_ptr<const std::string*>() : nullptr;
}

std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

Findings TokenizerFiles::check(const Folder& folder, Asked) {
  Findings out;
  if (folder.text(kTokenizer) == nullptr) {
    out.push_back({{kTokenizer, "file", "none"},
                   "no reader can turn text into ids; from vocab.json and merges.txt some rebuild another one",
                   "copy it from the base model",
                   false});
  } else if (!folder.tokenizer()) {
    out.push_back({{kTokenizer, "file", folder.faults().at(kTokenizer).message()},
                   "no reader can turn text into ids",
                   "copy it from the base model",
                   false});
  }
  return out;
}

Findings TokenizerClass::check(const Folder& folder, Asked asked) {
  const Json* config = folder.json(kTokenizerConfig);
  const std::string found = config == nullptr ? std::string() : folder.word(*config, "tokenizer_class");
  const bool old = reads_tokenizer(Reader::vllm, found, folder.wrapped());
  const bool current = reads_tokenizer(Reader::transformers5, found, folder.wrapped());
  if (asked ? reads_tokenizer(*asked, found, folder.wrapped()) : old && current) return {};
  Finding finding{
      in_file(folder, kTokenizerConfig, "tokenizer_class"), "",
      asked ? fmt::format("write \"{}\"", tokenizer_class(*asked))
            : "with --target: \"Qwen2Tokenizer\" for readers beside transformers 4, \"Qwen3_5Tokenizer\" for 5"};
  if (!old && !current) {
    finding.failure = "a class of another family splits text by other rules, or the reader stops";
    finding.level = Level::error;
  } else if (old) {
    finding.failure =
        "transformers 5 rebuilds the pattern of Qwen2 for it, which cuts off combining marks: Hindi and Thai get other "
        "ids";
    if (!asked) finding.level = Level::note;
  } else {
    finding.failure = "a reader beside transformers 4 does not have the class and stops with a ValueError";
  }
  return {finding};
}

Status TokenizerClass::fix(Folder& folder, Asked asked) {
  NIBBLE_CHECK(asked);
  folder.edit(kTokenizerConfig)["tokenizer_class"] = tokenizer_class(*asked);
  return {};
}

Findings SplitRegex::check(const Folder& folder, Asked) {
  if (!folder.tokenizer()) return {};
  const std::vector<std::string>& patterns = folder.tokenizer()->patterns;
  if (patterns == std::vector<std::string>{kFamilyPattern}) return {};
  const bool qwen2 = patterns == std::vector<std::string>{kQwen2Pattern};
  Finding finding{{kTokenizer, "pre_tokenizer", fmt::format("{}", fmt::join(patterns, " then "))},
                  qwen2 ? "the pattern of Qwen2: combining marks are cut off, so Hindi, Thai and Kannada get other ids "
                          "than in training"
                        : "not the pattern of the family: words are cut elsewhere than in training",
                  qwen2 ? "restore the pattern of the family" : "compare with the base model's tokenizer.json",
                  qwen2};
  if (!qwen2) finding.level = Level::warning;
  return {finding};
}

Status SplitRegex::fix(Folder& folder, Asked) {
  std::string text = *folder.text(kTokenizer);
  const std::string from = Json(kQwen2Pattern).dump(), to = Json(kFamilyPattern).dump();
  const size_t at = text.find(from);
  if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) {
    return unsupported("{}: expected the pattern of Qwen2 once, spelled {}, got another spelling", kTokenizer, from)
        .with_hint("copy tokenizer.json from the base model");
  }
  folder.set_text(kTokenizer, text.replace(at, from.size(), to));
  return {};
}

Findings ExtraTokens::check(const Folder& folder, Asked) {
  const Json* config = folder.json(kTokenizerConfig);
  const Json* extra = config == nullptr ? nullptr : find_value(*config, "extra_special_tokens");
  if (extra == nullptr || extra->is_object()) return {};
  return {{in_file(folder, kTokenizerConfig, "extra_special_tokens"),
           "transformers 4 expects names with their tokens and stops: 'list' object has no attribute 'keys'",
           "remove the list; its tokens stay in tokenizer.json"}};
}

Status ExtraTokens::fix(Folder& folder, Asked) {
  folder.edit(kTokenizerConfig).erase("extra_special_tokens");
  return {};
}

Findings TemplatePlaces::check(const Folder& folder, Asked asked) {
  const std::string *file = folder.text(kTemplate), *config = template_of_config(folder);
  if (file == nullptr && config == nullptr) {
    const Json* tokenizer = folder.json(kTokenizerConfig);
    if (tokenizer != nullptr && find_value(*tokenizer, "chat_template") != nullptr) return {};  // a list of them
    Finding finding{{kTemplate, "file", "none"},
                    "servers refuse chats, or guess a template",
                    "copy chat_template.jinja from the base model",
                    false};
    finding.level = Level::warning;
    return {finding};
  }
  if (file != nullptr && config != nullptr) {
    if (without_last_newline(*file) == without_last_newline(*config)) return {};
    Finding finding{in_file(folder, kTokenizerConfig, "chat_template"),
                    "differs from chat_template.jinja, which newer readers take: two readers, two prompts",
                    "write the file's template into tokenizer_config.json"};
    finding.evidence.value = fmt::format("{} bytes, the file has {}", config->size(), file->size());
    finding.level = Level::warning;
    return {finding};
  }
  if (asked != Reader::transformers4) return {};
  return {{{file == nullptr ? kTemplate : kTokenizerConfig, file == nullptr ? "file" : "chat_template", "none"},
           "readers before transformers 4.43 look in tokenizer_config.json alone, some tools in the file alone",
           "write it in both places"}};
}

Status TemplatePlaces::fix(Folder& folder, Asked) {
  const std::string *file = folder.text(kTemplate), *config = template_of_config(folder);
  if (file != nullptr) {
    folder.edit(kTokenizerConfig)["chat_template"] = *file;
  } else if (config != nullptr) {
    folder.set_text(kTemplate, *config);
  }
  return {};
}

Findings TemplateDialect::check(const Folder& folder, Asked) {
  const std::string *file = folder.text(kTemplate), *config = template_of_config(folder);
  const std::string* source = file != nullptr ? file : config;
  if (source == nullptr) return {};
  const char* place = file != nullptr ? kTemplate : kTokenizerConfig;
  const char* field = file != nullptr ? "file" : "chat_template";
  const Result<text::ChatTemplate> parsed = text::ChatTemplate::parse(*source, place);
  if (!parsed.ok()) {
    Finding finding{{place, field, parsed.status().message()},
                    "the template does not parse: chats fail",
                    "copy chat_template.jinja from the base model"};
    finding.level = Level::error;
    return {finding};
  }
  const bool xml = source->find("<function=") != std::string::npos;
  const bool hermes =
      source->find(R"({"name")") != std::string::npos || source->find(R"({\"name\")") != std::string::npos;
  if (xml && hermes) {
    Finding finding{{place, field, "both <function= and {\"name\""},
                    "the template teaches two forms of tool calls, and a server's parser reads one",
                    "keep the form that the model was trained on"};
    finding.level = Level::warning;
    return {finding};
  }
  if (file != nullptr && config != nullptr && text::dialect_of_template(*file) != text::dialect_of_template(*config)) {
    Finding finding{{kTokenizerConfig, "chat_template", std::string(text::name(text::dialect_of_template(*config)))},
                    fmt::format("{} writes tool calls as {}: by reader, the parser finds none", kTemplate,
                                text::name(text::dialect_of_template(*file))),
                    "keep the form that the model was trained on"};
    finding.level = Level::warning;
    return {finding};
  }
  if (!hermes) return {};
  return {{{place, field, "{\"name\": …, \"arguments\": …}"},
           "the family's usual parser, qwen3_coder, finds no call in this form: it comes through as text",
           "serve with --tool-call-parser hermes (vLLM), --tool-call-parser qwen25 (SGLang); nibble reads both"}};
}

Findings MissingProcessors::check(const Folder& folder, Asked) {
  if (!folder.wrapped()) return {};
  Findings out;
  for (const char* file : {kPreprocessor, kVideoPreprocessor}) {
    if (folder.json(file) != nullptr || folder.faults().contains(file)) continue;
    out.push_back({{file, "file", "none"},
                   "a model in the wrapped form is opened with its processor, with --language-model-only, too: the "
                   "server stops at start",
                   "write that of the released models"});
  }
  return out;
}

Status MissingProcessors::fix(Folder& folder, Asked) {
  if (folder.json(kPreprocessor) == nullptr) folder.edit(kPreprocessor) = released_preprocessor();
  if (folder.json(kVideoPreprocessor) == nullptr) folder.edit(kVideoPreprocessor) = released_video_preprocessor();
  return {};
}

namespace {

// What a processor's file says about its class must be one of these.
struct ProcessorField {
  const char *file, *key;
  std::initializer_list<std::string_view> known;
};

bool is_known(const Folder& folder, const ProcessorField& field) {
  const Json* json = folder.json(field.file);
  if (json == nullptr) return true;
  const std::string found = folder.word(*json, field.key);
  return std::find(field.known.begin(), field.known.end(), found) != field.known.end();
}

const ProcessorField kClassFields[] = {{kPreprocessor, "processor_class", {"Qwen3VLProcessor"}},
                                       {kVideoPreprocessor, "processor_class", {"Qwen3VLProcessor"}},
                                       {kProcessor, "processor_class", {"Qwen3VLProcessor"}}};
// Without "Fast" it is the same computation: transformers 5 has dropped the suffix.
const ProcessorField kImageField = {
    kPreprocessor, "image_processor_type", {"Qwen2VLImageProcessorFast", "Qwen2VLImageProcessor"}};
const ProcessorField kVideoField = {kVideoPreprocessor, "video_processor_type", {"Qwen3VLVideoProcessor"}};

Findings wrong_field(const Folder& folder, const ProcessorField& field, std::string_view failure) {
  if (is_known(folder, field)) return {};
  return {{in_file(folder, field.file, field.key), std::string(failure),
           fmt::format("write \"{}\"", *field.known.begin())}};
}

Status set_field(Folder& folder, const ProcessorField& field) {
  if (!is_known(folder, field)) folder.edit(field.file)[field.key] = std::string(*field.known.begin());
  return {};
}

bool is_qwen2(const std::string& word) {
  return word.starts_with("Qwen2VLProcessor") || word.starts_with("Qwen2_5_VL") || word == "Qwen2VLVideoProcessor" ||
         word.starts_with("Qwen2VLFor");
}

}  // namespace

Findings Qwen2Processors::check(const Folder& folder, Asked) {
  Findings out;
  for (const char* file : {kPreprocessor, kVideoPreprocessor, kProcessor}) {
    const Json* json = folder.json(file);
    if (json == nullptr) continue;
    for (const char* key : {"processor_class", "image_processor_type", "video_processor_type"}) {
      if (!is_qwen2(folder.word(*json, key))) continue;
      out.push_back(
          {in_file(folder, file, key),
           "harmful: renaming to the classes of Qwen2-VL makes the error go away and cuts images into patches "
           "of 14 pixels instead of 16",
           "write the class of this family"});
    }
    const Json* patch = find_value(*json, "patch_size");
    if (patch != nullptr && *patch != 16) {
      out.push_back({in_file(folder, file, "patch_size"),
                     "the vision tower's patches have 16 pixels: with others the embedding stops or images are garbage",
                     "write 16"});
    }
  }
  return out;
}

Status Qwen2Processors::fix(Folder& folder, Asked) {
  for (const char* file : {kPreprocessor, kVideoPreprocessor, kProcessor}) {
    const Json* json = folder.json(file);
    if (json == nullptr) continue;
    if (const Json* patch = find_value(*json, "patch_size"); patch != nullptr && *patch != 16) {
      folder.edit(file)["patch_size"] = 16;
    }
    const std::pair<const char*, const char*> names[] = {{"processor_class", "Qwen3VLProcessor"},
                                                         {"image_processor_type", "Qwen2VLImageProcessorFast"},
                                                         {"video_processor_type", "Qwen3VLVideoProcessor"}};
    for (const auto& [key, right] : names) {
      if (is_qwen2(folder.word(*json, key))) folder.edit(file)[key] = right;
    }
  }
  return {};
}

Findings ProcessorClass::check(const Folder& folder, Asked) {
  Findings out;
  for (const ProcessorField& field : kClassFields) {
    for (Finding& finding : wrong_field(folder, field, "AutoProcessor builds another processor, or stops")) {
      out.push_back(std::move(finding));
    }
  }
  return out;
}

Status ProcessorClass::fix(Folder& folder, Asked) {
  for (const ProcessorField& field : kClassFields) NIBBLE_RETURN_IF_ERROR(set_field(folder, field));
  return {};
}

Findings ImageProcessorType::check(const Folder& folder, Asked) {
  return wrong_field(folder, kImageField, "AutoImageProcessor knows no such class or cuts images in another way");
}
Status ImageProcessorType::fix(Folder& folder, Asked) {
  return set_field(folder, kImageField);
}

Findings VideoProcessorType::check(const Folder& folder, Asked) {
  return wrong_field(folder, kVideoField, "AutoVideoProcessor knows no such class or samples frames in another way");
}
Status VideoProcessorType::fix(Folder& folder, Asked) {
  return set_field(folder, kVideoField);
}

}  // namespace nibble::checkpoint::doctor
