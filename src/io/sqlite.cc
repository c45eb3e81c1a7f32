#include "io/sqlite.h"

#include <sqlite3.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "base/clock.h"

namespace nibble {
namespace {

Status sqlite_error(sqlite3* handle, int code) {
  const char* file = sqlite3_db_filename(handle, "main");
  const char* reason = handle == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle);
  const char* where = file == nullptr ? "" : file;
  switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return corrupt("sqlite: {} ({})", reason, where);
    case SQLITE_NOMEM:
      return fail(Code::out_of_memory, "sqlite: {} ({})", reason, where);
    default:
      return io("sqlite: {} ({})", reason, where);
  }
}

constexpr int kBusyMs = 5000;  // how long to wait for another process

// SQLite waits for other writers everywhere but here: of two that turn a file to WAL it refuses one at once, lest they
// wait for each other.
Status begin_log(sqlite3* handle) {
  const Stopwatch watch;
  for (;;) {
    const int code = sqlite3_exec(handle, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
    if (code == SQLITE_OK) return {};
    if (code != SQLITE_BUSY || watch.ms() > kBusyMs) return sqlite_error(handle, code);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

void SqlStatement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

void SqlStatement::bind(int parameter, int64_t value) {
  NIBBLE_CHECK(sqlite3_bind_int64(statement_.get(), parameter + 1, value) == SQLITE_OK);
}

void SqlStatement::bind(int parameter, double value) {
  NIBBLE_CHECK(sqlite3_bind_double(statement_.get(), parameter + 1, value) == SQLITE_OK);
}

void SqlStatement::bind(int parameter, std::string_view text) {
  NIBBLE_CHECK(sqlite3_bind_text64(statement_.get(), parameter + 1, text.data(), text.size(), SQLITE_TRANSIENT,
                                   SQLITE_UTF8) == SQLITE_OK);
}

Result<bool> SqlStatement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  Status status = code == SQLITE_DONE ? Status() : sqlite_error(sqlite3_db_handle(statement_.get()), code);
  sqlite3_reset(statement_.get());
  if (!status.ok()) return status;
  return false;
}

Status SqlStatement::run() {
  NIBBLE_TRY(row, step());
  NIBBLE_CHECK(!row);
  return {};
}

int64_t SqlStatement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double SqlStatement::real(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(statement_.get(), column);
}

std::string SqlStatement::text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column));
  return bytes == nullptr ? std::string() : std::string(bytes, size);
}

void Database::Close::operator()(sqlite3* handle) const {
  sqlite3_close_v2(handle);
}

Result<Database> Database::open(const Path& path, Mode mode) {
  std::error_code error;
  if (mode == Mode::read && !std::filesystem::exists(path, error)) {
    return not_found("sqlite: expected a database ({})", path.string());
  }
  // Reading, too, opens for writing where that is allowed: after a kill the first reader finishes the log.
  const int flags = SQLITE_OPEN_READWRITE | (mode == Mode::write ? SQLITE_OPEN_CREATE : 0);
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database database;
  database.path_ = path;
  database.handle_.reset(handle);
  if (code != SQLITE_OK) {
    return io("sqlite: {} ({})", handle == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle), path.string());
  }
  sqlite3_busy_timeout(handle, kBusyMs);
  if (mode == Mode::write) {
    NIBBLE_RETURN_IF_ERROR(begin_log(handle));
    NIBBLE_RETURN_IF_ERROR(database.execute("PRAGMA synchronous = NORMAL"));
  }
  return database;
}

Status Database::execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status() : sqlite_error(handle_.get(), code);
}

Result<SqlStatement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
  SqlStatement statement;
  statement.statement_.reset(raw);
  if (code != SQLITE_OK) return sqlite_error(handle_.get(), code);
  return statement;
}

Result<int64_t> Database::version() {
  NIBBLE_TRY(statement, prepare("PRAGMA user_version"));
  NIBBLE_TRY(row, statement.step());
  return row ? statement.integer(0) : 0;
}

Status Database::migrate(std::span<const char* const> steps) {
  const auto target = static_cast<int64_t>(steps.size());
  NIBBLE_TRY(at, version());
  while (at < target) {
    NIBBLE_RETURN_IF_ERROR(execute("BEGIN IMMEDIATE"));
    auto now = version();  // of this transaction: another writer may have been first
    Status taken = now.status();
    if (now.ok() && *now == at) {
      taken = execute(steps[static_cast<size_t>(at)]);
      if (taken.ok()) taken = execute("PRAGMA user_version = " + std::to_string(at + 1));
    }
    if (taken.ok()) taken = execute("COMMIT");
    if (!taken.ok()) {
      (void)execute("ROLLBACK");
      return taken;
    }
    at = now.ok() && *now > at ? *now : at + 1;
  }
  if (at == target) return {};
  return unsupported("sqlite: expected a file of version {} or older, got {} ({})", target, at, path_.string())
      .with_hint("a newer nibble wrote it");
}

}  // namespace nibble
