// All rules of `nibble doctor`, in the order in which they are checked and repaired: what decides the form of the
// folder first, then names, lists of names, scales, texts and processors. Ids are stable: scripts and issues name them.
//
// "hurts" says whose loading or results suffer. Without --target a finding has the first level, with a target among
// those hurt the second; a target that is not hurt does not see the finding. Repairs `always` are right for every
// reader and applied by --fix alone; those `for_reader` only with --target.
//
// What is said of readers was found by running transformers 5.17 and 4.57 and compressed-tensors 0.20, and for vLLM,
// SGLang, TensorRT-LLM and llama.cpp in their sources and threads: docs/compatibility.md says which is which.
#pragma once

#include "checkpoint/doctor/rules_config.h"
#include "checkpoint/doctor/rules_names.h"
#include "checkpoint/doctor/rules_quantization.h"
#include "checkpoint/doctor/rules_text.h"
#include "checkpoint/load.h"

namespace nibble::checkpoint::doctor {

/// What nibble's own loader says of files, names, dtypes and shapes: the last word where no other rule spoke.
struct NibbleLoads {
  static constexpr std::string_view kId = "D40";
  static Findings check(const Folder& folder, Asked);
};

/// Short words for the columns below.
namespace table {
constexpr Readers kServers{Reader::vllm, Reader::sglang, Reader::trtllm};
constexpr Readers kOldClasses{Reader::vllm, Reader::sglang, Reader::trtllm, Reader::transformers4};
constexpr Readers kPython{Reader::vllm,          Reader::sglang,        Reader::trtllm,
                          Reader::transformers4, Reader::transformers5, Reader::compressed_tensors};
constexpr Readers kWrappedOnly{Reader::vllm, Reader::sglang, Reader::transformers4};
constexpr Readers kOld{Reader::transformers4};
constexpr Readers kVllmSglang{Reader::vllm, Reader::sglang};
constexpr Readers kDrafting{Reader::vllm, Reader::sglang, Reader::llamacpp};
constexpr Readers kUnpacking{Reader::vllm, Reader::transformers5, Reader::compressed_tensors};
constexpr Readers kLibrary{Reader::transformers5, Reader::compressed_tensors};
constexpr Readers kNoAwq{Reader::vllm, Reader::sglang, Reader::transformers5, Reader::compressed_tensors,
                         Reader::llamacpp};
constexpr Readers kVision{Reader::vllm, Reader::sglang, Reader::transformers4, Reader::transformers5};
using enum Level;
using enum Repair;
}  // namespace table

inline constexpr Rule kRules[] = {
    // The form of the folder
    {"D21", "model_type is another word",
     "AutoConfig and every server choose the config class by model_type; trainers have left qwen3_5_text at the root "
     "of the wrapped form, and people have written the types of other families to get past an error.",
     Readers::all(), table::error, table::error, table::always, ModelType::check, ModelType::fix},
    {"D22", "architectures names another class",
     "vLLM, SGLang and llama.cpp's converter choose the code of the model by it. Renaming it to a class of Qwen2-VL, a "
     "work-around that went around, is worse than the error it hides.",
     Readers::all(), table::error, table::error, table::always, Architectures::check, Architectures::fix},
    {"D1", "text-only form",
     "vLLM knows the text-only class only since #50210 and #50355, SGLang's with ModelOpt FP4 crashes (#29577); both "
     "have always read the wrapped form.",
     table::kWrappedOnly, table::note, table::error, table::for_reader, TextForm::check, TextForm::fix},
    {"D36", "no vision_config, or one of another width",
     "The class default has out_hidden_size 3584, which fits no released size.", table::kVision, table::warning,
     table::error, table::always, VisionConfig::check, VisionConfig::fix},
    {"D34", "token ids of images and videos",
     "SGLang's class defaults (151655 and others) belong to another vocabulary.", table::kVision, table::warning,
     table::error, table::always, VisionTokens::check, VisionTokens::fix},

    // Names of tensors
    {"D4", "repeated or foreign prefix in tensor names",
     "transformers 5.5.0 to 5.5.3 saved model.language_model.language_model.* and model.language_model.visual.* "
     "(#45216); some trainers save a server's own names.",
     Readers::all(), table::error, table::error, table::always, RepeatedPrefix::check, RepeatedPrefix::fix},
    {"D2", "tensor names of the other form",
     "The wrapped class reads model.language_model.*, the text class model.*; what is not found is left random, with a "
     "line in the log (ms-swift #8098).",
     table::kPython, table::error, table::error, table::always, TensorPrefix::check, TensorPrefix::fix},

    // What config.json says
    {"D5", "rope_parameters missing or without mrope_section",
     "vLLM derives its kind of positions from mrope_section; without rope_parameters classes fall back to base 10000.",
     table::kPython, table::warning, table::error, table::always, RopeParameters::check, RopeParameters::fix},
    {"D6", "tie_word_embeddings missing or untrue",
     "transformers 4 takes true by default and ties 9B and 27B, which have a head of their own.", Readers::all(),
     table::error, table::error, table::always, TiedFlags::check, TiedFlags::fix},
    {"D7", "dtype in one spelling", "Older code reads torch_dtype, newer code dtype.", table::kOld, table::note,
     table::warning, table::for_reader, DtypeSpelling::check, DtypeSpelling::fix},
    {"D15", "layer_types missing",
     "Three of four layers are linear attention; a reader that is not told builds others.", table::kPython,
     table::warning, table::error, table::always, LayerTypes::check, LayerTypes::fix},
    {"D16", "mamba_ssm_dtype is not float32",
     "vLLM takes the dtype of the recurrent state from it (#34489); with a BF16 state MMLU fell from .45 to .15.",
     table::kVllmSglang, table::note, table::warning, table::for_reader, StateDtype::check, StateDtype::fix},
    {"D12", "stop ids incomplete",
     "Both <|im_end|> and <|endoftext|> end a reply; derived checkpoints ship one of them and never stop (verl #5649, "
     "mlx-vlm #2112).",
     Readers::all(), table::warning, table::warning, table::always, StopIds::check, StopIds::fix},
    {"D13", "a draft head in the config and none in the files",
     "transformers ignores mtp.* on loading and drops it on saving.", table::kDrafting, table::warning, table::warning,
     table::always, DraftHead::check, DraftHead::fix},
    {"D14", "A_log or the norm of the delta rule in BF16",
     "Qwen3.5 stores both in F32, Qwen3.6 in BF16; some trainers round them on saving (ms-swift #9412).",
     Readers::all(), table::note, table::note, table::never, RoundedDecay::check, nullptr},
    {"D20", "F16 for the large model", "Its residual stream exceeds 65504.", Readers::all(), table::error, table::error,
     table::never, HalfPrecision::check, nullptr},

    // Quantization
    {"D35", "quantization_config inside text_config", "Servers read it at the root.", table::kPython, table::error,
     table::error, table::always, NestedQuantization::check, NestedQuantization::fix},
    {"D29", "quantization that cannot be read",
     "MXFP4, low-rank exports without their factors, configs with missing keys.", Readers::all(), table::error,
     table::error, table::never, UnreadableQuantization::check, nullptr},
    {"D3", "lists of modules with names of the other form",
     "Names in ignore, exclude_modules, targets and quantized_layers must be those of the tensors: compressed-tensors "
     "matches them letter by letter and says nothing when none fits.",
     table::kPython, table::error, table::error, table::always, ListedNames::check, ListedNames::fix},
    {"D27", "quantized modules listed as dense",
     "nvidia/Qwen3.6-35B-A3B-NVFP4 quantizes lm_head and excludes lm_head* (vLLM #45102, #45132).", Readers::all(),
     table::error, table::error, table::always, QuantizedButIgnored::check, QuantizedButIgnored::fix},
    {"D31", "config and tensors disagree about what is quantized",
     "Loaders fill a linear whose tensors they do not find with whatever is in memory, and go on.", Readers::all(),
     table::error, table::error, table::always, Unclaimed::check, Unclaimed::fix},
    {"D18", "dense draft head that the config calls quantized",
     "mtp.* stays BF16 in every export, and not every exporter lists it (Model-Optimizer #1124, vLLM #38650).",
     table::kVllmSglang, table::warning, table::error, table::always, DraftHeadListed::check, DraftHeadListed::fix},
    {"D30", "hf_quant_config.json missing or incomplete",
     "vLLM demands group_size, kv_cache_quant_algo and exclude_modules as keys; TensorRT-LLM reads this file alone.",
     table::kServers, table::warning, table::error, table::always, HfQuantConfig::check, HfQuantConfig::fix},
    {"D32", "scales without a dimension",
     "compressed-tensors' own converter from ModelOpt writes [] (KL 3e-3 with weights, .19 with inputs).",
     table::kUnpacking, table::error, table::error, table::always, ScalarShapes::check, ScalarShapes::fix},
    {"D41", "inputs without scale_dtype",
     "Writers from before that key, and some of today, leave it out; vLLM does without.", table::kLibrary,
     table::warning, table::error, table::always, InputScaleDtype::check, InputScaleDtype::fix},
    {"D37", "fused linears in different formats",
     "vLLM and SGLang load q, k and v, gate and up, in_proj_qkv and in_proj_z as one matrix each (SGLang #38854, vLLM "
     "#35924).",
     table::kServers, table::warning, table::error, table::never, FusedFormats::check, nullptr},
    {"D17", "fused linears with unequal scales",
     "They take the largest scale of the parts without encoding the others anew (SGLang #29151, vLLM #36094: GSM8K .11 "
     "to .35 for .90).",
     table::kServers, table::warning, table::error, table::for_reader, FusedScales::check, FusedScales::fix},
    {"D28", "ModelOpt's AWQ", "Its list of norms that multiply by 1+w does not have this family.", table::kNoAwq,
     table::warning, table::error, table::never, InputFactors::check, nullptr},
    {"D33", "a layout that this reader does not have",
     "transformers knows no modelopt, TensorRT-LLM no compressed-tensors, nobody but nibble low-rank branches.",
     Readers::all(), table::note, table::error, table::never, LayoutOfReader::check, nullptr},
    {"D38", "F32 or F16 beside compressed-tensors", "Unpacking always yields BF16.", table::kLibrary, table::note,
     table::warning, table::never, WideDtype::check, nullptr},

    {"D43", "layers in a wider format than the rest",
     "Decoding one token reads every weight once, so bytes are time: a head in BF16 is a third of what a 9B in NVFP4 "
     "reads. ModelOpt leaves it so.",
     Readers::all(), table::note, table::note, table::never, SlowFormats::check, nullptr},

    // Tokenizer and template
    {"D39", "tokenizer.json missing or unreadable", "Everything else can be rebuilt; the vocabulary cannot.",
     Readers::all(), table::warning, table::error, table::never, TokenizerFiles::check, nullptr},
    {"D8", "tokenizer class that a reader does not have",
     "transformers 5 writes TokenizersBackend or Qwen3_5Tokenizer, and 4.57 has neither; under Qwen2Tokenizer, which "
     "4.57 needs, 5.17 puts the pattern of Qwen2 in the place of the file's.",
     table::kPython, table::warning, table::error, table::for_reader, TokenizerClass::check, TokenizerClass::fix},
    {"D9", "pre-tokenizer of another family",
     "The pattern of Qwen2 lacks combining marks; English text shows no difference.", Readers::all(), table::error,
     table::error, table::always, SplitRegex::check, SplitRegex::fix},
    {"D10", "extra_special_tokens is a list", "transformers 5 writes a list where transformers 4 expects an object.",
     table::kOldClasses, table::warning, table::error, table::always, ExtraTokens::check, ExtraTokens::fix},
    {"D19", "chat template missing, in one place, or two that differ",
     "transformers 4.43 and later take the file first, older code only tokenizer_config.json.", table::kPython,
     table::note, table::warning, table::always, TemplatePlaces::check, TemplatePlaces::fix},
    {"D26", "template and tool-call parser",
     "The released templates write calls as XML, many fine-tunes as JSON; servers take the parser from a flag.",
     table::kVllmSglang, table::note, table::note, table::never, TemplateDialect::check, nullptr},

    // Processors of the wrapped form
    {"D11", "preprocessor files missing",
     "The wrapped form is opened with its processor, even for text alone (SGLang #22885); trainers that save a text "
     "model lose the files.",
     table::kVision, table::warning, table::error, table::always, MissingProcessors::check, MissingProcessors::fix},
    {"D23", "classes of Qwen2-VL",
     "A work-around that went around: it loads, and cuts images into patches of 14 pixels.", Readers::all(),
     table::error, table::error, table::always, Qwen2Processors::check, Qwen2Processors::fix},
    {"D24", "processor_class", "AutoProcessor builds the class that this names: Qwen3VLProcessor.", table::kVision,
     table::warning, table::error, table::always, ProcessorClass::check, ProcessorClass::fix},
    {"D25", "image_processor_type",
     "AutoImageProcessor builds the class that this names: Qwen2VLImageProcessorFast, with patches of 16.",
     table::kVision, table::warning, table::error, table::always, ImageProcessorType::check, ImageProcessorType::fix},
    {"D42", "video_processor_type", "AutoVideoProcessor builds the class that this names: Qwen3VLVideoProcessor.",
     table::kVision, table::warning, table::error, table::always, VideoProcessorType::check, VideoProcessorType::fix},

    {NibbleLoads::kId, "nibble refuses the folder", "Missing shards and tensors, wrong shapes, damaged files.",
     Readers::all(), table::error, table::error, table::never, NibbleLoads::check, nullptr},
};

}  // namespace nibble::checkpoint::doctor
