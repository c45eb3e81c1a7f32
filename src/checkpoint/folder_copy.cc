#include "checkpoint/folder_copy.h"

#include <algorithm>
#include <vector>

namespace nibble::checkpoint {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kPiece = size_t{64} << 20;  // of a mapped file, so that memory does not fill with what was copied

Status copy_level(const Path& source, const Path& target, const Path& inside,
                  const std::function<bool(const Path&)>& wanted, int depth) {
  if (depth > kMaxDepth)
    return unsupported("copy: expected at most {} levels of folders ({})", kMaxDepth, inside.string());
  std::error_code error;
  std::vector<Path> names;
  for (std::filesystem::directory_iterator it(source / inside, error), end; !error && it != end; it.increment(error)) {
    const Path name = it->path().filename();
    if (!name.string().starts_with(".")) names.push_back(name);
  }
  if (error) return io("list: {} ({})", error.message(), (source / inside).string());
  std::sort(names.begin(), names.end());
  for (const Path& name : names) {
    const Path file = inside / name;
    if (std::filesystem::is_directory(source / file, error)) {
      std::filesystem::create_directory(target / file, error);
      if (error) return io("create folder: {} ({})", error.message(), (target / file).string());
      NIBBLE_RETURN_IF_ERROR(copy_level(source, target, file, wanted, depth + 1));
    } else if (std::filesystem::is_regular_file(source / file, error) && wanted(file)) {
      NIBBLE_RETURN_IF_ERROR(copy_bytes(source / file, target / file));
    }
  }
  return {};
}

}  // namespace

Status copy_bytes(const Path& source, const Path& target) {
  NIBBLE_TRY(in, MappedFile::open(source));
  NIBBLE_TRY(out, OutputFile::create(target));
  const std::span<const std::byte> bytes = in.bytes();
  for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
    const size_t size = std::min(kPiece, bytes.size() - begin);
    NIBBLE_RETURN_IF_ERROR(out.write(bytes.subspan(begin, size)));
    in.drop(begin, size);
  }
  return out.commit();
}

Status copy_folder(const Path& source, const Path& target, const std::function<bool(const Path&)>& wanted) {
  return copy_level(source, target, {}, wanted, 0);
}

Status check_outside(const Path& source, const Path& output) {
  std::error_code error;
  const Path from = std::filesystem::weakly_canonical(source, error),
             to = std::filesystem::weakly_canonical(output, error);
  const auto [a, b] = std::mismatch(from.begin(), from.end(), to.begin(), to.end());
  if (a != from.end()) return {};
  return invalid_argument("output: expected a folder outside {}, got {}", source.string(), output.string())
      .with_hint("the input is never changed: name another folder");
}

}  // namespace nibble::checkpoint
