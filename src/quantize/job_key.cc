// Which job a partial folder belongs to.
#include <algorithm>
#include <chrono>

#include "checkpoint/fingerprint.h"
#include "quantize/quantize.h"

namespace nibble::quantize {
namespace {

// Names, sizes and times of the files: reading tens of gigabytes to hash them would cost as much as the job.
Result<Json> files_of(const Path& source) {
  std::vector<std::tuple<std::string, uint64_t, int64_t>> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(source, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (!it->is_regular_file(gone)) continue;
    const auto time = it->last_write_time(gone).time_since_epoch();
    files.emplace_back(it->path().filename().string(), it->file_size(gone),
                       std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
    if (gone) return io("list: {} ({})", gone.message(), it->path().string());
  }
  if (error) return io("list: {} ({})", error.message(), source.string());
  std::sort(files.begin(), files.end());
  return Json(files);
}

}  // namespace

Result<std::string> job_key(const Path& source, const QuantizeOptions& options, std::string_view more) {
  NIBBLE_TRY(files, files_of(source));
  NIBBLE_TRY(config, read_file(source / "config.json"));
  Json formats = Json::array();
  for (const auto& [group, choice] : options.formats) {
    formats.push_back({group, format_name(choice.format), inputs_name(choice.inputs)});
  }
  const Json job = {{"version", NIBBLE_VERSION},
                    {"files", std::move(files)},
                    {"config", config},
                    {"recipe", recipe_json(options.recipe)},
                    {"exclude", options.exclude},
                    {"formats", std::move(formats)},
                    {"untie", options.untie},
                    {"layout", options.layout == Layout::modelopt ? "modelopt" : "compressed-tensors"},
                    {"input_amax", options.input_amax},
                    {"tie_groups", options.tie_groups},
                    {"quantize", options.quantize},
                    {"shard_bytes", options.shard_bytes},
                    {"more", more}};
  const std::string text = job.dump(-1, ' ', false, Json::error_handler_t::replace);
  return checkpoint::sha256(std::vector<std::string_view>{text});
}

}  // namespace nibble::quantize
