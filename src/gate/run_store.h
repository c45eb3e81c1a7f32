// The runs of a folder, in one SQLite file beside them: which there are, and what each found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/json.h"
#include "io/sqlite.h"

namespace nibble::gate {

struct StoredRun {
  std::string id;       // the name of the run's folder
  std::string command;  // gate, converse, …
  std::string started, recipe, model;
  int64_t cases = 0, passed = 0;
  int exit_code = 0;
  Json report = Json::object();  // report.json without its conversations
};

/// One writer at a time, others wait up to five seconds; what add() returned from survives a kill. A file of an older
/// version of nibble is brought to this one's form when it is opened for writing; one of a newer is `unsupported`.
class RunStore {
 public:
  /// `folder`/runs.sqlite. Reading a folder without one is `not_found`.
  static Result<RunStore> open(const Path& folder, Database::Mode mode);

  /// Takes the place of a run of the same id.
  Status add(const StoredRun& run);

  /// By time of start, the newest first; without the reports.
  Result<std::vector<StoredRun>> list();
  /// `not_found` names the runs there are.
  Result<StoredRun> get(const std::string& id);

  static constexpr int64_t kVersion = 1;

 private:
  explicit RunStore(Database database) : database_(std::move(database)) {}
  Database database_;
};

}  // namespace nibble::gate
