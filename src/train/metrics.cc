#include "train/metrics.h"

namespace nibble::train {
namespace {

constexpr const char* kLines = "metrics.jsonl";
constexpr const char* kDatabase = "metrics.db";

/// A member of a record and its name; exactly one of the three is set. The tables below are all that JSON, SQL and
/// reading know about the records.
template <class Record>
struct Field {
  const char* name;
  int64_t Record::*integer = nullptr;
  double Record::*real = nullptr;
  std::string Record::*text = nullptr;
};

template <class Record>
struct Table;

template <>
struct Table<StepRecord> {
  using R = StepRecord;
  static constexpr const char *kType = "step", *kName = "steps", *kKey = "step";
  static constexpr Field<R> kFields[] = {{"step", &R::step},
                                         {"loss", nullptr, &R::loss},
                                         {"ce", nullptr, &R::ce},
                                         {"kl", nullptr, &R::kl},
                                         {"lr", nullptr, &R::lr},
                                         {"grad_norm", nullptr, &R::grad_norm},
                                         {"clip", nullptr, &R::clip},
                                         {"tokens", &R::tokens},
                                         {"loss_tokens", &R::loss_tokens},
                                         {"tok_s", nullptr, &R::tok_s},
                                         {"nominal_mfu", nullptr, &R::nominal_mfu},
                                         {"executed_mfu", nullptr, &R::executed_mfu},
                                         {"memory_bytes", &R::memory_bytes},
                                         {"seconds", nullptr, &R::seconds},
                                         {"forward_s", nullptr, &R::forward_s},
                                         {"backward_s", nullptr, &R::backward_s},
                                         {"optimizer_s", nullptr, &R::optimizer_s},
                                         {"skipped", &R::skipped}};
};

template <>
struct Table<EvalRecord> {
  using R = EvalRecord;
  static constexpr const char *kType = "eval", *kName = "evals", *kKey = "step";
  static constexpr Field<R> kFields[] = {{"step", &R::step},
                                         {"ce", nullptr, &R::ce},
                                         {"kl", nullptr, &R::kl},
                                         {"top1", nullptr, &R::top1},
                                         {"gate_pass", nullptr, &R::gate_pass},
                                         {"output_tokens", nullptr, &R::output_tokens},
                                         {"length_capped", nullptr, &R::length_capped},
                                         {"seconds", nullptr, &R::seconds}};
};

template <>
struct Table<FlipRecord> {
  using R = FlipRecord;
  static constexpr const char *kType = "flips", *kName = "flips", *kKey = "step, tensor";
  static constexpr Field<R> kFields[] = {{"step", &R::step},
                                         {"tensor", nullptr, nullptr, &R::tensor},
                                         {"flip", nullptr, &R::flip},
                                         {"scale_flip", nullptr, &R::scale_flip},
                                         {"new_flip", nullptr, &R::new_flip},
                                         {"oscillation", nullptr, &R::oscillation},
                                         {"clipped", nullptr, &R::clipped},
                                         {"moved", nullptr, &R::moved}};
};

// On one line; bytes that are no UTF-8 become U+FFFD.
std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <class Record>
std::string column_names() {
  std::string names;
  for (const auto& field : Table<Record>::kFields) names += (names.empty() ? "" : ", ") + std::string(field.name);
  return names;
}

template <class Record>
Status create_table(Database& database, int64_t resume_step) {
  std::string columns;
  for (const auto& field : Table<Record>::kFields) {
    columns += fmt::format("{} {}, ", field.name, field.integer ? "INTEGER" : field.real ? "REAL" : "TEXT");
  }
  return database.execute(
      fmt::format("CREATE TABLE IF NOT EXISTS {0} ({1}PRIMARY KEY ({2}));"
                  "DELETE FROM {0} WHERE step > {3};",
                  Table<Record>::kName, columns, Table<Record>::kKey, resume_step));
}

template <class Record>
Result<SqlStatement> prepare_insert(Database& database) {
  std::string marks;
  for (size_t i = 0; i < std::size(Table<Record>::kFields); ++i) marks += i == 0 ? "?" : ", ?";
  return database.prepare(
      fmt::format("INSERT OR REPLACE INTO {} ({}) VALUES ({})", Table<Record>::kName, column_names<Record>(), marks));
}

template <class Record>
Status add_record(const Record& record, AppendFile& lines, SqlStatement& insert) {
  Json line = {{"type", Table<Record>::kType}};
  int column = 0;
  for (const auto& field : Table<Record>::kFields) {
    if (field.integer) {
      line[field.name] = record.*field.integer;
      insert.bind(column++, record.*field.integer);
    } else if (field.real) {
      line[field.name] = record.*field.real;  // NaN is written as null
      insert.bind(column++, record.*field.real);
    } else {
      line[field.name] = record.*field.text;
      insert.bind(column++, std::string_view(record.*field.text));
    }
  }
  NIBBLE_RETURN_IF_ERROR(lines.write(line_of(line) + "\n"));
  return insert.run();
}

template <class Record>
Status read_records(Database& database, const char* condition, std::vector<Record>& out) {
  NIBBLE_TRY(select, database.prepare(fmt::format("SELECT {} FROM {} {} ORDER BY step", column_names<Record>(),
                                                  Table<Record>::kName, condition)));
  while (true) {
    NIBBLE_TRY(row, select.step());
    if (!row) return {};
    Record record;
    int column = 0;
    for (const auto& field : Table<Record>::kFields) {
      if (field.integer) record.*field.integer = select.integer(column);
      if (field.real) record.*field.real = select.real(column);
      if (field.text) record.*field.text = select.text(column);
      ++column;
    }
    out.push_back(std::move(record));
  }
}

// The lines of steps up to resume_step; a line that is no JSON was cut off.
Status trim_lines(const Path& path, int64_t resume_step) {
  if (std::error_code error; !std::filesystem::exists(path, error)) return {};
  NIBBLE_TRY(text, read_file(path));
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string_view line = std::string_view(text).substr(begin, end + 1 - begin);
    const Result<Json> json = parse_json(line, kLines);
    if (json.ok() && json->is_object() && json->value("step", int64_t{0}) <= resume_step) kept += line;
    begin = end + 1;
  }
  return write_file(path, kept);
}

Status add_run(Database& database, const Json& settings, int64_t resume_step) {
  NIBBLE_RETURN_IF_ERROR(database.execute(
      "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, started TEXT, resume_step INTEGER, settings TEXT)"));
  if (resume_step == 0) NIBBLE_RETURN_IF_ERROR(database.execute("DELETE FROM runs"));
  NIBBLE_TRY(insert, database.prepare("INSERT INTO runs (started, resume_step, settings) VALUES "
                                      "(strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?)"));
  insert.bind(0, resume_step);
  insert.bind(1, std::string_view(line_of(settings)));
  return insert.run();
}

}  // namespace

Result<MetricsLog> MetricsLog::open(const Path& folder, const Json& settings, int64_t resume_step) {
  NIBBLE_RETURN_IF_ERROR(trim_lines(folder / kLines, resume_step));
  NIBBLE_TRY(lines, AppendFile::open(folder / kLines));
  NIBBLE_TRY(database, Database::open(folder / kDatabase, Database::Mode::write));
  NIBBLE_RETURN_IF_ERROR(create_table<StepRecord>(database, resume_step));
  NIBBLE_RETURN_IF_ERROR(create_table<EvalRecord>(database, resume_step));
  NIBBLE_RETURN_IF_ERROR(create_table<FlipRecord>(database, resume_step));
  NIBBLE_RETURN_IF_ERROR(add_run(database, settings, resume_step));
  MetricsLog log(std::move(lines), std::move(database));
  NIBBLE_TRY(step, prepare_insert<StepRecord>(log.database_));
  NIBBLE_TRY(eval, prepare_insert<EvalRecord>(log.database_));
  NIBBLE_TRY(flip, prepare_insert<FlipRecord>(log.database_));
  log.step_ = std::move(step);
  log.eval_ = std::move(eval);
  log.flip_ = std::move(flip);
  return log;
}

Status MetricsLog::add(const StepRecord& record) {
  return add_record(record, lines_, *step_);
}

Status MetricsLog::add(const EvalRecord& record) {
  return add_record(record, lines_, *eval_);
}

Status MetricsLog::add(const FlipRecord& record) {
  return add_record(record, lines_, *flip_);
}

Result<RunMetrics> read_metrics(const Path& folder) {
  NIBBLE_TRY(database, Database::open(folder / kDatabase, Database::Mode::read));
  RunMetrics metrics;
  NIBBLE_RETURN_IF_ERROR(read_records(database, "", metrics.steps));
  NIBBLE_RETURN_IF_ERROR(read_records(database, "", metrics.evals));
  NIBBLE_RETURN_IF_ERROR(read_records(database, "WHERE tensor = ''", metrics.flips));
  return metrics;
}

}  // namespace nibble::train
