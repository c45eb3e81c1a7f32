#include "gate/run_store.h"

#include "gate/chat_stream.h"

namespace nibble::gate {
namespace {

constexpr const char* kFile = "runs.sqlite";

// Each step takes a file from its version to the next.
constexpr const char* kMigrations[] = {
    R"(CREATE TABLE runs (
         id TEXT PRIMARY KEY, command TEXT NOT NULL, started TEXT NOT NULL, recipe TEXT NOT NULL, model TEXT NOT NULL,
         cases INTEGER NOT NULL, passed INTEGER NOT NULL, exit_code INTEGER NOT NULL, report TEXT NOT NULL);
       CREATE INDEX runs_by_start ON runs (started);)",
};
static_assert(std::size(kMigrations) == RunStore::kVersion);

StoredRun run_of(const SqlStatement& row) {
  StoredRun run;
  run.id = row.text(0);
  run.command = row.text(1);
  run.started = row.text(2);
  run.recipe = row.text(3);
  run.model = row.text(4);
  run.cases = row.integer(5);
  run.passed = row.integer(6);
  run.exit_code = static_cast<int>(row.integer(7));
  return run;
}

constexpr const char* kColumns = "id, command, started, recipe, model, cases, passed, exit_code";

}  // namespace

Result<RunStore> RunStore::open(const Path& folder, Database::Mode mode) {
  const Path file = folder / kFile;
  std::error_code ignored;
  if (mode == Database::Mode::read && !std::filesystem::exists(file, ignored)) {
    return not_found("runs: expected {}, got none", file.string())
        .with_hint("nibble gate --output FOLDER/NAME keeps its run there");
  }
  NIBBLE_TRY(database, Database::open(file, mode));
  if (mode == Database::Mode::write) {
    NIBBLE_RETURN_IF_ERROR(database.migrate(kMigrations));
    return RunStore(std::move(database));
  }
  NIBBLE_TRY(version, database.version());
  if (version > kVersion) {
    return unsupported("runs: expected a file of version {} or older, got {} ({})", kVersion, version, file.string())
        .with_hint("a newer nibble wrote it");
  }
  if (version < kVersion) {
    return unsupported("runs: expected a file of version {}, got {} ({})", kVersion, version, file.string())
        .with_hint("any run that is kept there brings it up to date");
  }
  return RunStore(std::move(database));
}

Status RunStore::add(const StoredRun& run) {
  NIBBLE_TRY(statement, database_.prepare(fmt::format("INSERT OR REPLACE INTO runs ({}, report) VALUES "
                                                      "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                                      kColumns)));
  const std::string_view texts[] = {run.id, run.command, run.started, run.recipe, run.model};
  for (int i = 0; i < 5; ++i) statement.bind(i, texts[i]);
  statement.bind(5, run.cases);
  statement.bind(6, run.passed);
  statement.bind(7, int64_t{run.exit_code});
  const std::string report = dump(run.report);
  statement.bind(8, std::string_view(report));
  return statement.run();
}

Result<std::vector<StoredRun>> RunStore::list() {
  NIBBLE_TRY(statement, database_.prepare(fmt::format("SELECT {} FROM runs ORDER BY started DESC, id", kColumns)));
  std::vector<StoredRun> runs;
  while (true) {
    NIBBLE_TRY(row, statement.step());
    if (!row) return runs;
    runs.push_back(run_of(statement));
  }
}

Result<StoredRun> RunStore::get(const std::string& id) {
  NIBBLE_TRY(statement, database_.prepare(fmt::format("SELECT {}, report FROM runs WHERE id = ?", kColumns)));
  statement.bind(0, std::string_view(id));
  NIBBLE_TRY(row, statement.step());
  if (row) {
    StoredRun run = run_of(statement);
    NIBBLE_TRY(report, parse_json(statement.text(8), "report of " + id));
    run.report = std::move(report);
    return run;
  }
  NIBBLE_TRY(runs, list());
  std::string names;
  for (const StoredRun& run : runs) names += (names.empty() ? "" : ", ") + run.id;
  return not_found("runs: expected one of {}, got \"{}\"", names.empty() ? "none" : names, id);
}

}  // namespace nibble::gate
