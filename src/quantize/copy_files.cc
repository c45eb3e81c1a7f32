#include "quantize/copy_files.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "checkpoint/folder_copy.h"

namespace nibble::quantize {
namespace {

constexpr std::string_view kTemplatesFolder = "additional_chat_templates";

// Weights of other frameworks and the optimizer states of trainers.
constexpr std::string_view kWeightSuffixes[] = {".safetensors", ".index.json", ".bin",  ".pt",      ".pth",
                                                ".gguf",        ".h5",         ".onnx", ".msgpack", ".ckpt"};
constexpr std::string_view kWrittenFiles[] = {"config.json", "hf_quant_config.json"};

bool is_copied(const std::string& name) {
  if (name.starts_with(".")) return false;
  for (std::string_view written : kWrittenFiles) {
    if (name == written) return false;
  }
  return std::none_of(std::begin(kWeightSuffixes), std::end(kWeightSuffixes),
                      [&](std::string_view suffix) { return name.ends_with(suffix); });
}

// Names of the regular files (or links to such) in a folder, sorted so that errors do not depend on the disk's order.
Result<std::vector<std::string>> file_names(const Path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
  }
  if (error) return io("list: {} ({})", error.message(), folder.string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Status copy_other_files(const Path& source, const Path& target) {
  NIBBLE_TRY(names, file_names(source));
  for (const std::string& name : names) {
    if (is_copied(name)) NIBBLE_RETURN_IF_ERROR(checkpoint::copy_bytes(source / name, target / name));
  }
  std::error_code error;
  if (!std::filesystem::is_directory(source / kTemplatesFolder, error)) return {};
  std::filesystem::create_directory(target / kTemplatesFolder, error);
  if (error) return io("create folder: {} ({})", error.message(), (target / kTemplatesFolder).string());
  NIBBLE_TRY(templates, file_names(source / kTemplatesFolder));
  for (const std::string& name : templates) {
    NIBBLE_RETURN_IF_ERROR(checkpoint::copy_bytes(source / kTemplatesFolder / name, target / kTemplatesFolder / name));
  }
  return {};
}

}  // namespace nibble::quantize
