#include "cli/run_folder.h"

#include <ctime>

namespace nibble::cli {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Status create_run_folder(const Path& folder, const std::string& command) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? io("{}: {}: {}", command, folder.string(), error.message()) : Status();
}

Status remember_run(const Path& folder, gate::StoredRun run) {
  const Path whole = std::filesystem::absolute(folder).lexically_normal();
  const Path named = whole.has_filename() ? whole : whole.parent_path();  // "runs/today/" is runs/today
  NIBBLE_TRY(store, gate::RunStore::open(named.parent_path(), Database::Mode::write));
  run.id = named.filename().string() + run.id;
  return store.add(run);
}

}  // namespace nibble::cli
