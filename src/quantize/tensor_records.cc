#include "quantize/tensor_records.h"

namespace nibble::quantize {
namespace {

// Numbers survive as they are: integers in decimal, floating point in its shortest exact form.
Json to_json(const QuantizedTensor& tensor) {
  const ops::Nvfp4Stats& s = tensor.stats;
  return {tensor.module,
          static_cast<int>(tensor.format),
          tensor.tensor_scale,
          s.blocks,
          s.floor_blocks,
          s.low_blocks,
          s.top_blocks,
          s.lost_rows,
          s.first_lost_row,
          s.energy,
          s.error,
          s.max_error};
}

bool from_json(const Json& json, QuantizedTensor& tensor) {
  constexpr size_t kFields = 12;
  if (!json.is_array() || json.size() != kFields || !json[0].is_string()) return false;
  for (size_t i = 1; i < kFields; ++i) {
    if (!json[i].is_number()) return false;
  }
  ops::Nvfp4Stats& s = tensor.stats;
  tensor.module = json[0].get<std::string>();
  tensor.format = static_cast<Format>(json[1].get<int>());
  tensor.tensor_scale = json[2].get<float>();
  int64_t* const counts[] = {&s.blocks, &s.floor_blocks, &s.low_blocks, &s.top_blocks, &s.lost_rows, &s.first_lost_row};
  for (size_t i = 0; i < std::size(counts); ++i) *counts[i] = json[3 + i].get<int64_t>();
  s.energy = json[9].get<double>();
  s.error = json[10].get<double>();
  s.max_error = json[11].get<double>();
  return true;
}

}  // namespace

Result<TensorRecords> TensorRecords::open(const Path& file) {
  const Result<std::string> text = read_file(file);
  if (!text.ok() && text.status().code() != Code::not_found) return text.status();
  NIBBLE_TRY(append, AppendFile::open(file));
  TensorRecords records(std::move(append));
  const std::string lines = text.ok() ? *text : std::string();
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    const Result<Json> json = parse_json(std::string_view(lines).substr(begin, end - begin), "record");
    QuantizedTensor tensor;
    if (json.ok() && from_json(*json, tensor)) records.tensors_.insert_or_assign(tensor.module, tensor);
    begin = end + 1;
  }
  if (!lines.empty() && lines.back() != '\n') NIBBLE_RETURN_IF_ERROR(records.file_.write("\n"));
  return records;
}

const QuantizedTensor* TensorRecords::find(const std::string& module) const {
  const auto found = tensors_.find(module);
  return found == tensors_.end() ? nullptr : &found->second;
}

Status TensorRecords::add(const QuantizedTensor& tensor) {
  return file_.write(to_json(tensor).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace nibble::quantize
