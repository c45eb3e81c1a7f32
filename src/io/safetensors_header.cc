#include "io/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace nibble {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxTensors = 100'000;
constexpr size_t kMaxRank = 8;

struct NamedDType {
  std::string_view name;
  int bits;
};

constexpr NamedDType kDTypes[] = {
    {"F32", 32}, {"BF16", 16}, {"F16", 16},    {"F8_E4M3", 8}, {"U8", 8},          {"I32", 32},
    {"BOOL", 8}, {"I8", 8},    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"I16", 16}, {"U16", 16},  {"U32", 32},    {"I64", 64},    {"U64", 64},        {"F64", 64},
    {"C64", 64}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

// Receives the events of the JSON parser; a method that returns false stops it, with the reason in `error`.
//
// The only documents it lets through are {"__metadata__": {string: string}, name: {"dtype": string, "shape":
// [unsigned], "data_offsets": [unsigned, unsigned]}}, so the depth is bounded by construction.
class HeaderHandler {
 public:
  explicit HeaderHandler(SafetensorsHeader& header) : header_(header) {}

  bool null() { return refuse("null"); }
  bool boolean(bool) { return refuse("a boolean"); }
  bool number_integer(int64_t) { return refuse("a negative number"); }
  bool number_float(double, const std::string&) { return refuse("a fraction"); }
  bool binary(std::vector<uint8_t>&) { return refuse("binary"); }

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::shape) {
      if (tensor_.shape.size() == kMaxRank) return stop("{}: more than {} dimensions", tensor_.name, kMaxRank);
      if (value > std::numeric_limits<int64_t>::max()) return stop("{}: dimension {}", tensor_.name, value);
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::offsets) {
      if (offset_count_ == 2) return stop("{}: more than two data_offsets", tensor_.name);
      offsets_[offset_count_++] = value;
      return true;
    }
    return refuse("a number");
  }

  bool string(std::string& value) {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (place_ == Place::tensor && key_ == "dtype") {
      tensor_.dtype = std::move(value);
      return true;
    }
    return refuse("a string");
  }

  bool start_object(size_t) {
    if (place_ == Place::start) return go(Place::root);
    if (place_ != Place::root) return refuse("an object");
    return go(in_metadata_ ? Place::metadata : Place::tensor);
  }

  bool end_object() {
    if (place_ == Place::tensor && !finish_tensor()) return false;
    return go(place_ == Place::root ? Place::end : Place::root);
  }

  bool start_array(size_t) {
    if (place_ != Place::tensor) return refuse("an array");
    if (key_ == "shape") return go(Place::shape);
    if (key_ == "data_offsets") return go(Place::offsets);
    return refuse("an array");
  }

  bool end_array() { return go(Place::tensor); }

  bool key(std::string& key) {
    if (place_ == Place::root) return root_key(key);
    if (place_ == Place::metadata) {
      key_ = key;
      return !header_.metadata.contains(key) || stop("duplicate key \"{}\" in __metadata__", key);
    }
    const int bit = key == "dtype" ? 1 : key == "shape" ? 2 : key == "data_offsets" ? 4 : 0;
    if (bit == 0) return stop("{}: unknown key \"{}\"", tensor_.name, key);
    if ((seen_ & bit) != 0) return stop("{}: duplicate key \"{}\"", tensor_.name, key);
    seen_ |= bit;
    key_ = key;
    return true;
  }

  template <class Exception>
  bool parse_error(size_t position, const std::string&, const Exception&) {
    return stop("invalid JSON at byte {}", position);
  }

  std::string error;

 private:
  enum class Place { start, root, metadata, tensor, shape, offsets, end };

  bool go(Place place) {
    place_ = place;
    return true;
  }

  template <class... A>
  bool stop(fmt::format_string<A...> format, A&&... args) {
    error = fmt::format(format, std::forward<A>(args)...);
    return false;
  }

  bool refuse(std::string_view what) {
    if (place_ == Place::start || place_ == Place::root || place_ == Place::metadata) {
      return stop("{} in a place where none belongs", what);
    }
    return stop("{}: {} in a place where none belongs", tensor_.name, what);
  }

  bool root_key(std::string& key) {
    if (!names_.insert(key).second) return stop("duplicate key \"{}\"", key);
    in_metadata_ = key == "__metadata__";
    if (in_metadata_) return true;
    if (header_.tensors.size() == kMaxTensors) return stop("more than {} tensors", kMaxTensors);
    tensor_ = {};
    tensor_.name = key;
    seen_ = 0;
    offset_count_ = 0;
    return true;
  }

  bool finish_tensor() {
    const std::string& name = tensor_.name;
    if (seen_ != 7 || offset_count_ != 2) return stop("{}: dtype, shape or data_offsets missing", name);
    const auto [begin, end] = offsets_;
    if (begin > end) return stop("{}: data_offsets [{},{}]", name, begin, end);
    tensor_.offset = begin;
    tensor_.bytes = end - begin;
    tensor_.type = dtype_from_safetensors(tensor_.dtype);
    const int bits = safetensors_bits(tensor_.dtype);
    if (bits == 0) return stop("{}: dtype \"{}\"", name, tensor_.dtype);
    if (const auto bytes = tensor_bytes(tensor_.shape, bits); bytes != tensor_.bytes) {
      return stop("{}: {} with {} bytes", name, tensor_.text(), tensor_.bytes);
    }
    header_.tensors.push_back(std::move(tensor_));
    return true;
  }

  SafetensorsHeader& header_;
  Place place_ = Place::start;
  bool in_metadata_ = false;
  std::unordered_set<std::string> names_;
  std::string key_;
  TensorInfo tensor_;
  int seen_ = 0;
  uint64_t offsets_[2] = {0, 0};
  int offset_count_ = 0;
};

// The ranges, in order, must tile [0, data_bytes).
Status check_ranges(const std::vector<TensorInfo>& tensors, uint64_t data_bytes, std::string_view where) {
  uint64_t position = 0;
  for (const TensorInfo& t : tensors) {
    if (t.offset != position) {
      return corrupt("{}: expected data that begins at byte {}, got {} ({})", t.name, position, t.offset, where);
    }
    position += t.bytes;  // cannot wrap: each end was read as a 64-bit number
  }
  if (position != data_bytes) {
    return corrupt("data section: expected {} bytes, got {} ({})", position, data_bytes, where)
        .with_hint("the file is incomplete or was changed: fetch it again");
  }
  return {};
}

}  // namespace

int safetensors_bits(std::string_view dtype) {
  for (const NamedDType& known : kDTypes) {
    if (known.name == dtype) return known.bits;
  }
  return 0;
}

std::optional<uint64_t> tensor_bytes(std::span<const int64_t> shape, int bits) {
  uint64_t total = static_cast<uint64_t>(bits);
  // A dimension of 0 makes the product 0, whatever stands beside it; so it is looked for first.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) total = 0;
  for (int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(total, static_cast<uint64_t>(dim), &total)) return std::nullopt;
  }
  if (total % 8 != 0 || total > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return total / 8;
}

Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file, std::string_view where) {
  constexpr size_t kLengthBytes = 8;
  if (file.size() < kLengthBytes + 2) {
    return corrupt("safetensors: expected a header, got a file of {} bytes ({})", file.size(), where)
        .with_hint("the file is incomplete: fetch it again");
  }
  uint64_t n = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) n |= static_cast<uint64_t>(file[i]) << (8 * i);
  if (n > kMaxHeaderBytes) {
    return corrupt("safetensors: expected a header of at most {} bytes, got {} ({})", kMaxHeaderBytes, n, where)
        .with_hint("this may not be a safetensors file");
  }
  if (n > file.size() - kLengthBytes) {
    return corrupt("safetensors: expected a header of {} bytes, got a file of {} ({})", n, file.size(), where)
        .with_hint("the file is incomplete: fetch it again");
  }
  SafetensorsHeader header;
  header.json = {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(n)};
  header.data_begin = kLengthBytes + static_cast<size_t>(n);
  if (!header.json.starts_with('{')) return corrupt("safetensors: expected a header that starts with '{{' ({})", where);

  HeaderHandler handler(header);
  if (!nlohmann::json::sax_parse(header.json.begin(), header.json.end(), &handler)) {
    return corrupt("safetensors: expected a valid header, got {} ({})", handler.error, where);
  }
  // Empty tensors stand before the tensor that begins where they do.
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  NIBBLE_RETURN_IF_ERROR(check_ranges(header.tensors, file.size() - header.data_begin, where));
  return header;
}

}  // namespace nibble
