#include <algorithm>
#include <charconv>
#include <set>

#include "io/json.h"
#include "io/safetensors.h"

namespace nibble {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 64 << 20;
constexpr int64_t kMaxShards = 10'000;

/// What a folder's index says: which tensor stands in which file. Empty without an index.
using WeightMap = std::vector<std::pair<std::string, std::string>>;

// The index may hold 100,000 names in one object, so it is read by a handler of its own: {"metadata": anything,
// "weight_map": {string: string}}.
class IndexHandler {
 public:
  bool null() { return scalar(); }
  bool boolean(bool) { return scalar(); }
  bool number_integer(int64_t) { return scalar(); }
  bool number_unsigned(uint64_t) { return scalar(); }
  bool number_float(double, const std::string&) { return scalar(); }
  bool binary(std::vector<uint8_t>&) { return scalar(); }

  bool string(std::string& value) {
    if (!in_map_) return scalar();
    map.back().second = std::move(value);
    return true;
  }
  bool start_object(size_t) {
    if (in_map_) return stop("an object inside weight_map");
    if (depth_ == 1 && key_ == "weight_map") in_map_ = true;
    return enter();
  }
  bool end_object() {
    if (depth_ == 2) in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(size_t) {
    if (in_map_ || depth_ == 0) return stop("an array where an object belongs");
    return enter();
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool key(std::string& key) {
    if (in_map_) {
      if (!names_.insert(key).second) return stop("duplicate key \"{}\"", key);
      map.emplace_back(key, "");
    } else if (depth_ == 1) {
      key_ = key;
      if (key == "weight_map" && std::exchange(found, true)) return stop("two weight_maps");
    }
    return true;
  }
  template <class Exception>
  bool parse_error(size_t position, const std::string&, const Exception&) {
    return stop("invalid JSON at byte {}", position);
  }

  WeightMap map;
  std::string error;
  bool found = false;

 private:
  static constexpr int kMaxDepth = 16;

  template <class... A>
  bool stop(fmt::format_string<A...> format, A&&... args) {
    error = fmt::format(format, std::forward<A>(args)...);
    return false;
  }
  bool scalar() {
    if (in_map_) return stop("a file name that is no string in weight_map");
    return depth_ > 0 || stop("no object");
  }
  bool enter() { return ++depth_ <= kMaxDepth || stop("more than {} levels of nesting", kMaxDepth); }

  int depth_ = 0;
  bool in_map_ = false;
  std::string key_;
  std::set<std::string, std::less<>> names_;
};

// A shard must be a plain name: no folders, no "..", so an index cannot reach outside its own folder.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

Result<WeightMap> read_index(const Path& folder) {
  NIBBLE_TRY(text, read_file(folder / kIndexFile, kMaxIndexBytes));
  IndexHandler handler;
  if (!Json::sax_parse(text, &handler)) {
    return corrupt("{}: expected a valid index, got {}", kIndexFile, handler.error);
  }
  if (!handler.found || handler.map.empty()) {
    return corrupt("{}: expected a weight_map with tensors, got none", kIndexFile);
  }
  for (const auto& [name, file] : handler.map) {
    if (!is_plain_name(file)) {
      return corrupt("{}: {}: expected a file name inside the folder, got \"{}\"", kIndexFile, name, file);
    }
  }
  return std::move(handler.map);
}

/// NN of "model-00001-of-000NN.safetensors", or 0.
int64_t shard_count(std::string_view name) {
  constexpr std::string_view kHead = "model-00001-of-", kTail = ".safetensors";
  if (!name.starts_with(kHead) || !name.ends_with(kTail) || name.size() != kHead.size() + 5 + kTail.size()) return 0;
  const char* begin = name.data() + kHead.size();
  int64_t count = 0;
  const auto [end, error] = std::from_chars(begin, begin + 5, count);
  return error == std::errc() && end == begin + 5 && count <= kMaxShards ? count : 0;
}

// Without an index: a complete numbered set, or the only safetensors file there is.
Result<std::vector<std::string>> guess_files(const Path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  bool other_format = false;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const Path name = it->path().filename();
    if (name.extension() == ".safetensors") names.push_back(name.string());
    if (name.extension() == ".bin" || name.extension() == ".gguf" || name.extension() == ".pt") other_format = true;
  }
  if (error) return not_found("model folder: {} ({})", error.message(), folder.string());
  std::sort(names.begin(), names.end());  // a folder's own order is arbitrary
  for (const std::string& name : names) {
    if (const int64_t count = shard_count(name); count > 0) {
      std::vector<std::string> set;
      for (int64_t i = 1; i <= count; ++i) set.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i, count));
      return set;
    }
  }
  if (names.size() == 1) return names;
  if (names.empty()) {
    return not_found("weights: expected {} or {}, got neither ({})", kSingleFile, kIndexFile, folder.string())
        .with_hint(other_format ? "nibble reads safetensors: convert the model to safetensors first"
                                : "give the folder of a Hugging Face model");
  }
  return corrupt("weights: expected {} beside {} safetensors files, got none ({})", kIndexFile, names.size(),
                 folder.string())
      .with_hint("fetch the index file of the model too");
}

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::open(const Path& folder) {
  std::error_code ignored;
  WeightMap map;
  std::vector<std::string> names;
  if (std::filesystem::exists(folder / kSingleFile, ignored)) {
    names = {kSingleFile};
  } else if (std::filesystem::exists(folder / kIndexFile, ignored)) {
    NIBBLE_TRY(index, read_index(folder));
    map = std::move(index);
    std::set<std::string> distinct;
    for (const auto& [name, file] : map) distinct.insert(file);
    names.assign(distinct.begin(), distinct.end());
  } else {
    NIBBLE_TRY(guessed, guess_files(folder));
    names = std::move(guessed);
  }

  SafetensorsFolder out;
  out.files_.reserve(names.size());
  for (const std::string& name : names) {
    Result<Safetensors> file = Safetensors::open(folder / name);
    if (!file.ok() && file.status().code() == Code::not_found) {
      return corrupt("shard missing: expected {} in the folder, got none ({})", name, folder.string())
          .with_hint("the download is incomplete: fetch the model again");
    }
    if (!file.ok()) return file.status();
    out.files_.push_back(std::move(*file));
  }
  for (const Safetensors& file : out.files_) {
    for (const TensorInfo& info : file.tensors()) {
      const auto [other, fresh] = out.by_name_.emplace(info.name, out.tensors_.size());
      if (!fresh) {
        return corrupt("{}: expected in one file, got it in {} and {}", info.name,
                       out.tensors_[other->second].file->mapping().path().filename().string(),
                       file.mapping().path().filename().string());
      }
      out.tensors_.push_back({&info, &file});
    }
  }
  for (const auto& [name, file] : map) {
    const Entry* entry = out.find(name);
    if (entry == nullptr || entry->file->mapping().path().filename() != file) {
      return corrupt("{}: expected in {} as the index says, got none there", name, file)
          .with_hint("the shards and the index do not belong together: fetch the model again");
    }
  }
  return out;
}

const SafetensorsFolder::Entry* SafetensorsFolder::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace nibble
