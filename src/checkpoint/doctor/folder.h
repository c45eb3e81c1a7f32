// Folder: what the rules look at and what their repairs change. Everything is read once; changes stay in memory until
// they are written to another folder (write_folder.h). The folder itself is never touched.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/quantization.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "text/tokenizer_json.h"

namespace nibble::checkpoint::doctor {

inline constexpr const char* kConfig = "config.json";
inline constexpr const char* kGenerationConfig = "generation_config.json";
inline constexpr const char* kTokenizerConfig = "tokenizer_config.json";
inline constexpr const char* kTokenizer = "tokenizer.json";
inline constexpr const char* kPreprocessor = "preprocessor_config.json";
inline constexpr const char* kVideoPreprocessor = "video_preprocessor_config.json";
inline constexpr const char* kProcessor = "processor_config.json";
inline constexpr const char* kHfQuant = "hf_quant_config.json";
inline constexpr const char* kTemplate = "chat_template.jinja";

/// One tensor of the folder, and what it shall be instead.
struct FolderTensor {
  const SafetensorsFolder::Entry* stored = nullptr;
  std::string name;
  std::vector<int64_t> shape;
  /// As many bytes as stored; empty: those that are stored.
  std::function<Result<std::string>()> bytes{};

  const std::string& dtype() const { return stored->info->dtype; }
  bool changed() const { return bytes || name != stored->info->name || shape != stored->info->shape; }
};

/// What the tokenizer's files say, as far as the rules ask.
struct TokenizerFacts {
  std::string text;                      // tokenizer.json
  std::vector<std::string> patterns;     // of its Split pre-tokenizers
  std::map<std::string, int64_t> added;  // added tokens of both files, by content
};

class Folder {
 public:
  /// `not_found` and `invalid_argument` for what is no folder with a config.json; every other fault is a fault of the
  /// folder, kept in faults().
  static Result<Folder> open(const Path& path);
  Folder(Folder&&) = default;
  Folder& operator=(Folder&&) = default;

  const Path& path() const { return path_; }
  /// Files that are there and cannot be read, by name.
  const std::map<std::string, Status>& faults() const { return faults_; }

  /// A JSON object of the folder; nullptr where there is none or it cannot be read.
  const Json* json(const std::string& file) const;
  /// The same to be changed, created where it is missing.
  Json& edit(const std::string& file);
  /// A text file of the folder.
  const std::string* text(const std::string& file) const;
  void set_text(const std::string& file, std::string text);

  const Json& config() const { return *json(kConfig); }
  /// The object that holds the language model's keys: text_config, or the root.
  const Json& text_config() const;
  Json& edit_text_config();
  /// Whether config.json has the form with a text_config.
  bool wrapped() const;
  /// A string of the config, or empty.
  std::string word(const Json& object, const char* key) const;

  /// Empty where the weights cannot be read.
  const std::vector<FolderTensor>& tensors() const { return tensors_; }
  std::vector<FolderTensor>& edit_tensors() { return tensors_; }
  const FolderTensor* tensor(std::string_view name) const;
  /// What the tensors of the language model begin with: "model." or "model.language_model.", or empty.
  std::string_view prefix() const;
  /// The number in an F32 scalar of shape [] or [1].
  std::optional<float> scalar(const FolderTensor* tensor) const;
  Result<std::string> bytes(const FolderTensor& tensor) const;

  const std::optional<TokenizerFacts>& tokenizer() const { return tokenizer_; }

  /// What the two config files say, as they are now. Not ok where they cannot be read.
  Result<Quantization> quantization() const;

  /// Names of JSON and text files that differ from those in the folder, with their contents.
  std::map<std::string, std::string> changed_files() const;
  bool changes_tensors() const;
  /// The stored weights; nullptr where they cannot be read.
  const SafetensorsFolder* weights() const { return weights_.get(); }

 private:
  Folder() = default;
  void read_json(const std::string& file);
  void read_text(const std::string& file);
  void read_tokenizer();
  void read_weights();

  Path path_;
  std::map<std::string, Status> faults_;
  std::map<std::string, Json> json_, stored_json_;
  std::map<std::string, std::string> text_, stored_text_;
  std::unique_ptr<SafetensorsFolder> weights_;
  std::vector<FolderTensor> tensors_;
  std::optional<TokenizerFacts> tokenizer_;
};

}  // namespace nibble::checkpoint::doctor
