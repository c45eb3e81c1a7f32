#include "quantize/partial_folder.h"

#include <utility>

#include "base/log.h"

namespace nibble::quantize {
namespace {

constexpr const char* kJob = "job";
constexpr const char* kLock = "lock";
constexpr const char* kModel = "model";
constexpr const char* kWork = "work";

Status remove_contents(const Path& folder) {
  std::error_code error;
  for (const char* name : {kJob, kModel, kWork, "tensors"}) {  // the key first: what is left without it is nobody's
    std::filesystem::remove_all(folder / name, error);
    if (error) return io("remove: {} ({})", error.message(), (folder / name).string());
  }
  return {};
}

// Files that a process was writing when it ended.
void remove_temporaries(const Path& folder) {
  std::error_code ignored;
  std::vector<Path> temporaries;
  for (std::filesystem::recursive_directory_iterator it(folder, ignored), end; !ignored && it != end;
       it.increment(ignored)) {
    if (it->path().filename().string().find(".tmp-") != std::string::npos) temporaries.push_back(it->path());
  }
  for (const Path& path : temporaries) std::filesystem::remove(path, ignored);
}

// Whether there is a file with anything in it, of that ending.
bool holds_file(const Path& folder, std::string_view ending) {
  std::error_code ignored;
  for (std::filesystem::recursive_directory_iterator it(folder, ignored), end; !ignored && it != end;
       it.increment(ignored)) {
    std::error_code gone;
    if (it->path().string().ends_with(ending) && it->is_regular_file(gone) && it->file_size(gone) > 0) return true;
  }
  return false;
}

Status create_folder(const Path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return {};
  return io("create folder: {} ({})", error.message(), folder.string())
      .with_hint("check that the folder above it exists and may be written, or choose another --output");
}

}  // namespace

Result<PartialFolder> PartialFolder::open(const Path& output, const std::string& key) {
  PartialFolder folder;
  folder.output_ = output.has_filename() ? output : output.parent_path();  // "out/" means "out"
  const Path root = folder.output_.string() + ".partial";
  std::error_code error;
  if (std::filesystem::exists(folder.output_, error) && !std::filesystem::is_empty(folder.output_, error)) {
    return invalid_argument("output: expected a new or empty folder, got one with files in it ({})",
                            folder.output_.string())
        .with_hint("choose another --output, or remove the folder");
  }
  NIBBLE_RETURN_IF_ERROR(create_folder(root));
  NIBBLE_TRY(lock, AppendFile::open(root / kLock));
  if (!lock.lock().ok()) {
    return unavailable("output: expected a folder that no other process writes, got one in use ({})",
                       folder.output_.string())
        .with_hint("wait for the other process to end, or choose another --output");
  }
  folder.lock_ = std::make_unique<AppendFile>(std::move(lock));
  folder.root_ = root;
  folder.model_ = root / kModel;
  folder.work_ = root / kWork;
  const Result<std::string> found = read_file(root / kJob, 4096);
  folder.resumed_ = found.ok() && *found == key;
  if (!folder.resumed_) {
    if (folder.holds_something()) spdlog::warn("{}: replaced, as it belongs to another job", root.string());
    NIBBLE_RETURN_IF_ERROR(remove_contents(root));
  }
  remove_temporaries(root);
  NIBBLE_RETURN_IF_ERROR(create_folder(folder.model_));
  NIBBLE_RETURN_IF_ERROR(create_folder(folder.work_));
  if (!folder.resumed_) NIBBLE_RETURN_IF_ERROR(write_file(root / kJob, key));
  return folder;
}

PartialFolder::PartialFolder(PartialFolder&& other) noexcept {
  *this = std::move(other);
}

PartialFolder& PartialFolder::operator=(PartialFolder&& other) noexcept {
  std::swap(output_, other.output_);
  std::swap(root_, other.root_);
  std::swap(model_, other.model_);
  std::swap(work_, other.work_);
  std::swap(lock_, other.lock_);
  std::swap(resumed_, other.resumed_);
  return *this;
}

PartialFolder::~PartialFolder() {
  if (root_.empty()) return;
  remove_temporaries(root_);
  std::error_code ignored;
  if (!holds_something()) std::filesystem::remove_all(root_, ignored);
}

bool PartialFolder::holds_something() const {
  return holds_file(model_, ".safetensors") || holds_file(work_, "");
}

Status PartialFolder::commit() {
  NIBBLE_CHECK(!root_.empty());
  remove_temporaries(model_);
  std::error_code error, ignored;
  std::filesystem::rename(model_, output_, error);  // takes the place of an empty folder, and of nothing else
  if (error) return io("rename: {} ({})", error.message(), output_.string());
  std::filesystem::remove_all(root_, ignored);
  root_.clear();
  return {};
}

}  // namespace nibble::quantize
