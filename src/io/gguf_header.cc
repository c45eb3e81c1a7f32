#include <limits>
#include <unordered_set>

#include "io/gguf.h"

namespace nibble {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr uint64_t kMaxPairs = 65'536, kMaxTensors = 100'000, kMaxKeyBytes = 65'535, kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxDims = 4;

/// Bytes of a value, 0 for strings, arrays and unknown types.
uint64_t size_of(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  return 0;
}

template <class T>
T load(const std::byte* at) {
  std::make_unsigned_t<T> value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<std::make_unsigned_t<T>>(static_cast<std::make_unsigned_t<T>>(at[i]) << (8 * i));
  }
  return static_cast<T>(value);
}

GgufValue scalar(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::u8:
      return uint64_t{load<uint8_t>(at)};
    case GgufType::i8:
      return int64_t{load<int8_t>(at)};
    case GgufType::u16:
      return uint64_t{load<uint16_t>(at)};
    case GgufType::i16:
      return int64_t{load<int16_t>(at)};
    case GgufType::u32:
      return uint64_t{load<uint32_t>(at)};
    case GgufType::i32:
      return int64_t{load<int32_t>(at)};
    case GgufType::u64:
      return load<uint64_t>(at);
    case GgufType::i64:
      return load<int64_t>(at);
    case GgufType::f32:
      return double{std::bit_cast<float>(load<uint32_t>(at))};
    case GgufType::f64:
      return std::bit_cast<double>(load<uint64_t>(at));
    case GgufType::boolean:
      return load<uint8_t>(at) != 0;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  NIBBLE_CHECK(false);
  return false;
}

/// Walks the header. Each step looks at what is left before it reads, so no length of the file is trusted.
class Parser {
 public:
  Parser(std::span<const std::byte> file, std::string_view where) : file_(file), where_(where) {}

  Result<GgufHeader> run() {
    NIBBLE_RETURN_IF_ERROR(start());
    NIBBLE_RETURN_IF_ERROR(pairs());
    NIBBLE_RETURN_IF_ERROR(read_alignment());
    NIBBLE_RETURN_IF_ERROR(tensors());
    NIBBLE_RETURN_IF_ERROR(data());
    return std::move(header_);
  }

 private:
  uint64_t left() const { return file_.size() - at_; }
  Status truncated(std::string_view what) const {
    return corrupt("{}: expected more bytes, got the end of the file at {} ({})", what, file_.size(), where_)
        .with_hint("the file is incomplete: fetch it again");
  }

  template <class T>
  Status read(T& out, std::string_view what) {
    if (left() < sizeof(T)) return truncated(what);
    out = load<T>(file_.data() + at_);
    at_ += sizeof(T);
    return {};
  }
  Status read(std::string_view& out, std::string_view what) {
    uint64_t size = 0;
    NIBBLE_RETURN_IF_ERROR(read(size, what));
    if (size > left()) {
      return corrupt("{}: expected a string inside the file, got one of {} bytes ({})", what, size, where_);
    }
    out = {reinterpret_cast<const char*>(file_.data() + at_), static_cast<size_t>(size)};
    at_ += size;
    return {};
  }

  Status start() {
    const std::string_view text(reinterpret_cast<const char*>(file_.data()), file_.size());
    if (!text.starts_with(kMagic)) {
      return corrupt("header: expected \"GGUF\", got other bytes ({})", where_).with_hint("is this a GGUF file?");
    }
    at_ = kMagic.size();
    uint32_t version = 0;
    NIBBLE_RETURN_IF_ERROR(read(version, "header"));
    if (version == __builtin_bswap32(kVersion)) {
      return unsupported("header: expected a little-endian file, got a big-endian one ({})", where_)
          .with_hint("llama.cpp's gguf_convert_endian.py turns it");
    }
    if (version != kVersion) return unsupported("header: expected GGUF version 3, got {} ({})", version, where_);
    NIBBLE_RETURN_IF_ERROR(read(tensor_count_, "header"));
    NIBBLE_RETURN_IF_ERROR(read(pair_count_, "header"));
    if (tensor_count_ > kMaxTensors || pair_count_ > kMaxPairs) {
      return corrupt("header: expected at most {} tensors and {} keys, got {} and {} ({})", kMaxTensors, kMaxPairs,
                     tensor_count_, pair_count_, where_);
    }
    return {};
  }

  Status array(GgufArray& out, const std::string& key) {
    uint32_t type = 0;
    NIBBLE_RETURN_IF_ERROR(read(type, key));
    NIBBLE_RETURN_IF_ERROR(read(out.count, key));
    const bool string = type == static_cast<uint32_t>(GgufType::string);
    const uint64_t least = string ? 8 : size_of(type);  // bytes of an element
    if (least == 0) return corrupt("{}: expected an array of numbers or strings, got type {} ({})", key, type, where_);
    if (out.count > left() / least) {
      return corrupt("{}: expected an array inside the file, got {} elements ({})", key, out.count, where_);
    }
    out.type = static_cast<GgufType>(type);
    const size_t begin = at_;
    if (string) {
      out.strings.resize(out.count);
      for (std::string_view& element : out.strings) NIBBLE_RETURN_IF_ERROR(read(element, key));
    } else {
      at_ += out.count * least;
    }
    out.bytes = file_.subspan(begin, at_ - begin);
    return {};
  }

  Status value(GgufValue& out, const std::string& key) {
    uint32_t type = 0;
    NIBBLE_RETURN_IF_ERROR(read(type, key));
    if (type == static_cast<uint32_t>(GgufType::array)) return array(out.emplace<GgufArray>(), key);
    if (type == static_cast<uint32_t>(GgufType::string)) return read(out.emplace<std::string_view>(), key);
    const uint64_t size = size_of(type);
    if (size == 0) return corrupt("{}: expected a value of type 0 to 12, got type {} ({})", key, type, where_);
    if (left() < size) return truncated(key);
    out = scalar(static_cast<GgufType>(type), file_.data() + at_);
    at_ += size;
    return {};
  }

  Status pairs() {
    std::unordered_set<std::string_view> seen;
    for (uint64_t i = 0; i < pair_count_; ++i) {
      std::string_view key;
      NIBBLE_RETURN_IF_ERROR(read(key, "metadata"));
      if (key.empty() || key.size() > kMaxKeyBytes) {
        return corrupt("metadata: expected a key of 1 to {} bytes, got {} ({})", kMaxKeyBytes, key.size(), where_);
      }
      if (!seen.insert(key).second) return corrupt("{}: expected each key once, got two ({})", gguf_shown(key), where_);
      GgufValue out;
      NIBBLE_RETURN_IF_ERROR(value(out, gguf_shown(key)));
      header_.metadata.emplace_back(key, std::move(out));
    }
    return {};
  }

  Status read_alignment() {
    for (const auto& [key, value] : header_.metadata) {
      if (key != "general.alignment") continue;
      const auto* bytes = std::get_if<uint64_t>(&value);
      if (bytes == nullptr || *bytes == 0 || *bytes > kMaxAlignment || (*bytes & (*bytes - 1)) != 0) {
        return corrupt("general.alignment: expected a power of two up to {}, got something else ({})", kMaxAlignment,
                       where_);
      }
      alignment_ = *bytes;
    }
    return {};
  }

  Status tensor(GgufTensor& out) {
    std::string_view name;
    NIBBLE_RETURN_IF_ERROR(read(name, "tensor table"));
    if (name.empty() || name.size() > kGgufMaxNameBytes) {
      return corrupt("tensor table: expected a name of 1 to {} bytes, got {} ({})", kGgufMaxNameBytes, name.size(),
                     where_);
    }
    const std::string shown_name = gguf_shown(name);
    out.name = name;
    uint32_t dims = 0, type = 0;
    NIBBLE_RETURN_IF_ERROR(read(dims, shown_name));
    if (dims < 1 || dims > kMaxDims) {
      return corrupt("{}: expected 1 to {} dimensions, got {} ({})", shown_name, kMaxDims, dims, where_);
    }
    uint64_t elements = 1, inner = 0;
    for (uint32_t i = 0; i < dims; ++i) {
      int64_t dim = 0;
      NIBBLE_RETURN_IF_ERROR(read(dim, shown_name));
      // A factor of 64 is left for the bytes of an element, so no later product overflows.
      constexpr uint64_t kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 64;
      if (dim < 1 || elements > kMost / static_cast<uint64_t>(dim)) {
        return corrupt("{}: expected dimensions of a tensor that fits into memory, got {} ({})", shown_name, dim,
                       where_);
      }
      elements *= static_cast<uint64_t>(dim);
      if (i == 0) inner = static_cast<uint64_t>(dim);
      out.shape.insert(out.shape.begin(), dim);
    }
    NIBBLE_RETURN_IF_ERROR(read(type, shown_name));
    const auto format = ggml_format(type);
    if (!format) {
      return unsupported("{}: expected F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q5_K, Q6_K or NVFP4, got {} ({})", shown_name,
                         ggml_type_name(type), where_);
    }
    const auto block = static_cast<uint64_t>(format->weights);
    if (inner % block != 0) {
      return corrupt("{}: expected rows of a multiple of {} weights for {}, got {} ({})", shown_name, block,
                     format->name, inner, where_);
    }
    out.type = format->type;
    out.bytes = elements / block * static_cast<uint64_t>(format->bytes);
    return read(out.offset, shown_name);
  }

  Status tensors() {
    std::unordered_set<std::string> seen;
    for (uint64_t i = 0; i < tensor_count_; ++i) {
      GgufTensor out;
      NIBBLE_RETURN_IF_ERROR(tensor(out));
      if (!seen.insert(out.name).second) {
        return corrupt("{}: expected each tensor once, got two ({})", gguf_shown(out.name), where_);
      }
      header_.tensors.push_back(std::move(out));
    }
    return {};
  }

  Status data() {
    const uint64_t begin = (at_ + alignment_ - 1) / alignment_ * alignment_;
    uint64_t position = 0;  // in the data section
    for (GgufTensor& t : header_.tensors) {
      if (t.offset != position) {
        return corrupt("{}: expected data that begins at byte {}, got {} ({})", gguf_shown(t.name), position, t.offset,
                       where_);
      }
      if (begin > file_.size() || position > file_.size() - begin || t.bytes > file_.size() - begin - position) {
        return truncated(gguf_shown(t.name));
      }
      t.offset = begin + position;
      position += (t.bytes + alignment_ - 1) / alignment_ * alignment_;  // below 2 * 2^63: both were bounded above
    }
    header_.data_begin = static_cast<size_t>(std::min<uint64_t>(begin, file_.size()));
    return {};
  }

  std::span<const std::byte> file_;
  std::string_view where_;
  size_t at_ = 0;
  uint64_t tensor_count_ = 0, pair_count_ = 0, alignment_ = kGgufAlignment;
  GgufHeader header_;
};

}  // namespace

int64_t GgufArray::integer(uint64_t i) const {
  NIBBLE_CHECK(i < count && is_integer());
  const GgufValue value = scalar(type, bytes.data() + i * size_of(static_cast<uint32_t>(type)));
  if (const auto* negative = std::get_if<int64_t>(&value)) return *negative;
  const uint64_t positive = std::get<uint64_t>(value);
  return static_cast<int64_t>(std::min<uint64_t>(positive, std::numeric_limits<int64_t>::max()));
}

bool GgufArray::is_integer() const {
  return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}

std::string gguf_shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 64)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return text.size() > 64 ? out + "…" : out;
}

Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file, std::string_view where) {
  return Parser(file, where).run();
}

}  // namespace nibble
