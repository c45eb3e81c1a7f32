// SQLite, as much of it as a log needs: one connection, prepared statements, errors as Status. Not thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"

struct sqlite3;
struct sqlite3_stmt;

namespace nibble {

/// A prepared statement; lives no longer than its Database. Columns and parameters count from 0.
class SqlStatement {
 public:
  void bind(int parameter, int64_t value);
  void bind(int parameter, double value);  // NaN becomes NULL
  void bind(int parameter, std::string_view text);

  /// Runs to the next row: true if there is one, false at the end. After the end, or an error, it may be bound anew.
  Result<bool> step();
  /// For statements without rows.
  Status run();

  int64_t integer(int column) const;
  double real(int column) const;  // NULL is NaN
  std::string text(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Database {
 public:
  enum class Mode : uint8_t { read, write };
  /// write creates the file where it is missing and keeps a write-ahead log: what a statement has written survives a
  /// kill, and readers are never in the way.
  static Result<Database> open(const Path& path, Mode mode);

  /// One or more statements without parameters, their rows ignored.
  Status execute(const std::string& sql);
  Result<SqlStatement> prepare(std::string_view sql);

  /// PRAGMA user_version: 0 of a new file.
  Result<int64_t> version();
  /// Brings the file to version steps.size(): steps[v] takes it from v to v + 1, in a transaction of its own that is
  /// undone as a whole where a statement of it fails. Of several writers at once one takes a step, the others find it
  /// taken. `unsupported` for a file of a later version.
  Status migrate(std::span<const char* const> steps);

 private:
  struct Close {
    void operator()(sqlite3* handle) const;
  };
  Path path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

}  // namespace nibble
