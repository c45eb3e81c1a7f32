#include "gate/run_files.h"

#include "gate/chat_stream.h"
#include "gate/junit.h"
#include "gate/report_html.h"

namespace nibble::gate {

Status for_each_record(const Recipe& recipe, const Records& records, int repeats,
                       const std::function<Status(const Case&, const CaseRecord&)>& each) {
  for (const Case& one : recipe.cases) {
    for (int repeat = 1; repeat <= repeats; ++repeat) {
      const auto record = records.get(one.id, repeat);
      if (record.status().code() == Code::not_found) continue;
      if (!record.ok()) return record.status();
      NIBBLE_RETURN_IF_ERROR(each(one, *record));
    }
  }
  return {};
}

Status write_report_json(const Path& file, const Recipe& recipe, const Records& records, const Report& report,
                         int repeats) {
  NIBBLE_TRY(out, OutputFile::create(file));
  std::string head = to_json(report).dump(1, ' ', false, Json::error_handler_t::replace);
  head.resize(head.rfind('}'));
  NIBBLE_RETURN_IF_ERROR(out.write(head + ",\n \"conversations\": ["));
  bool first = true;
  NIBBLE_RETURN_IF_ERROR(for_each_record(recipe, records, repeats, [&](const Case&, const CaseRecord& record) {
    const std::string line = (first ? "\n  " : ",\n  ") + dump(conversation_json(record));
    first = false;
    return out.write(line);
  }));
  NIBBLE_RETURN_IF_ERROR(out.write(std::string_view("\n ]\n}\n")));
  return out.commit();
}

Status write_run_files(const Path& folder, const std::string& suffix, const Recipe& recipe, const Records& records,
                       const Report& report, int repeats) {
  NIBBLE_RETURN_IF_ERROR(write_report_json(folder / ("report" + suffix + ".json"), recipe, records, report, repeats));
  NIBBLE_RETURN_IF_ERROR(write_junit(folder / ("junit" + suffix + ".xml"), recipe, records, report, repeats));
  return write_report_html(folder / ("report" + suffix + ".html"), recipe, records, report, repeats);
}

}  // namespace nibble::gate
