#include "checkpoint/doctor/write_folder.h"

#include <algorithm>
#include <set>

#include "checkpoint/folder_copy.h"
#include "io/safetensors_writer.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr const char* kIndex = "model.safetensors.index.json";

std::string file_name(const Safetensors& file) {
  return file.mapping().path().filename().string();
}

// The tensors of one weight file, in its order.
std::vector<const FolderTensor*> tensors_of(const Folder& folder, const Safetensors& file) {
  std::vector<const FolderTensor*> out;
  for (const FolderTensor& tensor : folder.tensors()) {
    if (tensor.stored->file == &file) out.push_back(&tensor);
  }
  return out;
}

bool changed(const std::vector<const FolderTensor*>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const FolderTensor* tensor) { return tensor->changed(); });
}

Status write_weights(const std::vector<const FolderTensor*>& tensors, const Safetensors& source, const Path& target) {
  std::vector<TensorDeclaration> declarations;
  for (const FolderTensor* tensor : tensors) {
    TensorDeclaration declaration(*tensor->stored->info);
    declaration.name = tensor->name;
    declaration.shape = tensor->shape;
    declarations.push_back(std::move(declaration));
  }
  NIBBLE_TRY(writer, SafetensorsWriter::create(target, std::move(declarations), source.metadata()));
  for (const FolderTensor* tensor : tensors) {
    if (tensor->bytes) {
      NIBBLE_TRY(bytes, tensor->bytes());
      if (bytes.size() != tensor->stored->info->bytes) {
        return corrupt("{}: expected {} bytes, got {}", tensor->name, tensor->stored->info->bytes, bytes.size());
      }
      NIBBLE_RETURN_IF_ERROR(writer.append(tensor->name, std::as_bytes(std::span(bytes))));
    } else {
      NIBBLE_RETURN_IF_ERROR(writer.append(tensor->name, source.bytes(*tensor->stored->info)));
    }
    source.drop(*tensor->stored->info);
  }
  return writer.commit();
}

Status write_index(const Folder& folder, const Path& target) {
  NIBBLE_TRY(text, read_file(folder.path() / kIndex));
  NIBBLE_TRY(index, parse_json(text, kIndex, {.max_depth = 4, .max_keys = 100'000}));
  Json map = Json::object();
  for (const FolderTensor& tensor : folder.tensors()) map[tensor.name] = file_name(*tensor.stored->file);
  if (!index.is_object()) return corrupt("{}: expected an object, got {}", kIndex, index.type_name());
  index["weight_map"] = std::move(map);
  return write_file(target / kIndex, index.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

Status write_folder(const Folder& folder, const Path& output) {
  const std::map<std::string, std::string> texts = folder.changed_files();
  std::set<std::string> written;
  for (const auto& [file, text] : texts) written.insert(file);
  std::vector<std::pair<const Safetensors*, std::vector<const FolderTensor*>>> weights;
  if (folder.weights() != nullptr) {
    for (const Safetensors& file : folder.weights()->files()) {
      std::vector<const FolderTensor*> tensors = tensors_of(folder, file);
      if (!changed(tensors)) continue;
      written.insert(file_name(file));
      weights.emplace_back(&file, std::move(tensors));
    }
  }
  std::error_code ignored;
  const bool index = !weights.empty() && std::filesystem::exists(folder.path() / kIndex, ignored);
  if (index) written.insert(kIndex);

  NIBBLE_RETURN_IF_ERROR(check_outside(folder.path(), output));
  NIBBLE_TRY(target, OutputFolder::create(output));
  NIBBLE_RETURN_IF_ERROR(
      copy_folder(folder.path(), target.path(), [&](const Path& file) { return !written.contains(file.string()); }));
  for (const auto& [file, text] : texts) NIBBLE_RETURN_IF_ERROR(write_file(target.path() / file, text));
  for (const auto& [file, tensors] : weights) {
    NIBBLE_RETURN_IF_ERROR(write_weights(tensors, *file, target.path() / file_name(*file)));
  }
  if (index) NIBBLE_RETURN_IF_ERROR(write_index(folder, target.path()));
  return target.commit();
}

}  // namespace nibble::checkpoint::doctor
