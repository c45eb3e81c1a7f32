// The one seam to the file system, so that tests can make it fail (FileFaults).
//
// Inputs are mapped read-only and never changed. Outputs are written beside their place under a temporary name and
// renamed when complete, so a reader sees the old file, the new file, or none: never half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nibble {

using Path = std::filesystem::path;

/// A read-only mapping of a whole file; unmapped with the last copy. The bytes stay valid while any copy lives.
/// A file truncated by someone else while it is mapped faults on access, as with every mapping.
class MappedFile {
 public:
  static Result<MappedFile> open(const Path& path);

  std::span<const std::byte> bytes() const { return bytes_; }
  const Path& path() const { return path_; }

  /// Tells the kernel that the pages of this range will not be read again (streaming over large files).
  void drop(size_t offset, size_t size) const;

 private:
  Path path_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

/// The whole file as a string; refuses files larger than `limit` bytes.
Result<std::string> read_file(const Path& path, uint64_t limit = uint64_t{1} << 30);

/// A file that appears under its name only by commit(); without it the temporary file is removed.
class OutputFile {
 public:
  static Result<OutputFile> create(const Path& path);
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) noexcept;
  ~OutputFile();

  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text);
  uint64_t size() const { return size_; }

  /// Flushes to the disk and renames into place.
  Status commit();

 private:
  OutputFile() = default;
  void discard();

  Path path_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

Status write_file(const Path& path, std::string_view text);

/// A file that grows: every write is handed to the operating system at once and complete, so it survives the end of the
/// process, though not that of the machine.
class AppendFile {
 public:
  /// Creates the file where it is missing.
  static Result<AppendFile> open(const Path& path);
  AppendFile(AppendFile&&) noexcept;
  AppendFile& operator=(AppendFile&&) noexcept;
  ~AppendFile();

  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text);
  /// For this object alone until it is destroyed; `unavailable` where another has it, in this process or any.
  Status lock();
  /// Returns when what was written is on the disk.
  Status sync();
  /// Leaves the first `size` bytes, of at least as many.
  Status truncate(uint64_t size);
  /// Flushes to the disk and renames to `path`, beside it, in one step. Later writes go on in the same file.
  Status commit(const Path& path);

 private:
  AppendFile() = default;

  Path path_;
  int fd_ = -1;
};

/// A folder that appears under its name only by commit(); without it everything written inside is removed.
/// Refuses a path that exists and is not an empty folder.
class OutputFolder {
 public:
  static Result<OutputFolder> create(const Path& path);
  OutputFolder(OutputFolder&&) noexcept;
  OutputFolder& operator=(OutputFolder&&) noexcept;
  ~OutputFolder();

  /// Where to write until commit().
  const Path& path() const { return temporary_; }
  Status commit();

 private:
  OutputFolder() = default;
  void discard();

  Path path_, temporary_;
};

/// `fresh` takes the place of `target`, whose old contents go. Both are folders beside each other; target may be
/// absent. Exchanged in one step where the file system can, so that a complete folder stands under the name at every
/// moment.
Status replace_folder(const Path& fresh, const Path& target);

/// For tests: called before every operation with its name ("open", "read", "write", "truncate", "sync", "rename",
/// "mkdir") and path; a Status that is not ok makes the operation fail with it. An empty function switches injection
/// off.
using FileFaults = std::function<Status(std::string_view operation, const Path& path)>;
void inject_file_faults(FileFaults faults);

}  // namespace nibble
