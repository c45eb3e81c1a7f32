#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace nibble {
namespace {

FileFaults& faults() {
  static FileFaults injected;
  return injected;
}

Status inject(std::string_view operation, const Path& path) {
  return faults() ? faults()(operation, path) : Status();
}

Status os_error(std::string_view operation, const Path& path, int error) {
  const char* reason = std::strerror(error);
  if (error == ENOENT) return not_found("{}: {} ({})", operation, reason, path.string());
  Status status = io("{}: {} ({})", operation, reason, path.string());
  if (error == ENOSPC) return std::move(status).with_hint("free some disk space and run the command again");
  if (error == EACCES || error == EROFS || error == EPERM || error == ENOTDIR) {
    return std::move(status).with_hint("check that the folder exists and may be written, or choose another one");
  }
  return status;
}

Status write_all(int fd, const Path& path, std::span<const std::byte> bytes) {
  NIBBLE_RETURN_IF_ERROR(inject("write", path));
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return os_error("write", path, errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Status flush_and_rename(int fd, const Path& from, const Path& to) {
  NIBBLE_RETURN_IF_ERROR(inject("sync", to));
  if (::fsync(fd) != 0) return os_error("sync", to, errno);
  NIBBLE_RETURN_IF_ERROR(inject("rename", to));
  return ::rename(from.c_str(), to.c_str()) == 0 ? Status() : os_error("rename", to, errno);
}

// Beside the target, so that the rename stays on one file system; the process id keeps two writers apart.
Path temporary_name(const Path& path) {
  Path name = path.filename();
  name += ".tmp-" + std::to_string(::getpid());
  return path.parent_path() / name;
}

}  // namespace

void inject_file_faults(FileFaults injected) {
  faults() = std::move(injected);
}

Result<MappedFile> MappedFile::open(const Path& path) {
  NIBBLE_RETURN_IF_ERROR(inject("open", path));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return os_error("open", path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const int error = S_ISDIR(info.st_mode) ? EISDIR : (errno != 0 ? errno : EINVAL);
    ::close(fd);
    return os_error("open", path, error);
  }
  MappedFile file;
  file.path_ = path;
  const auto size = static_cast<size_t>(info.st_size);
  if (size > 0) {
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data == MAP_FAILED) return os_error("map", path, error);
    file.owner_ = std::shared_ptr<const void>(data, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
    file.bytes_ = {static_cast<const std::byte*>(data), size};
  } else {
    ::close(fd);
  }
  return file;
}

void MappedFile::drop(size_t offset, size_t size) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + size) / page * page;
  if (end > begin) ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

Result<std::string> read_file(const Path& path, uint64_t limit) {
  NIBBLE_TRY(file, MappedFile::open(path));
  NIBBLE_RETURN_IF_ERROR(inject("read", path));
  if (file.bytes().size() > limit) {
    return corrupt("file too large: expected at most {} bytes, got {} ({})", limit, file.bytes().size(), path.string());
  }
  if (file.bytes().empty()) return std::string();
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

Result<OutputFile> OutputFile::create(const Path& path) {
  OutputFile file;
  file.path_ = path;
  file.temporary_ = temporary_name(path);
  NIBBLE_RETURN_IF_ERROR(inject("open", path));
  file.fd_ = ::open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return os_error("create", path, errno);
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept {
  *this = std::move(other);
}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

OutputFile::~OutputFile() {
  discard();
}

void OutputFile::discard() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
  ::unlink(temporary_.c_str());
}

Status OutputFile::write(std::span<const std::byte> bytes) {
  NIBBLE_CHECK(fd_ >= 0);
  NIBBLE_RETURN_IF_ERROR(write_all(fd_, path_, bytes));
  size_ += bytes.size();
  return {};
}
Status OutputFile::write(std::string_view text) {
  return write(std::as_bytes(std::span(text.data(), text.size())));
}

Status OutputFile::commit() {
  NIBBLE_CHECK(fd_ >= 0);
  NIBBLE_RETURN_IF_ERROR(flush_and_rename(fd_, temporary_, path_));
  ::close(fd_);
  fd_ = -1;
  return {};
}

Status write_file(const Path& path, std::string_view text) {
  NIBBLE_TRY(file, OutputFile::create(path));
  NIBBLE_RETURN_IF_ERROR(file.write(text));
  return file.commit();
}

Result<AppendFile> AppendFile::open(const Path& path) {
  AppendFile file;
  file.path_ = path;
  NIBBLE_RETURN_IF_ERROR(inject("open", path));
  file.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return os_error("open", path, errno);
  return file;
}

AppendFile::AppendFile(AppendFile&& other) noexcept {
  *this = std::move(other);
}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status AppendFile::write(std::span<const std::byte> bytes) {
  NIBBLE_CHECK(fd_ >= 0);
  return write_all(fd_, path_, bytes);
}
Status AppendFile::write(std::string_view text) {
  return write(std::as_bytes(std::span(text.data(), text.size())));
}

Status AppendFile::lock() {
  NIBBLE_CHECK(fd_ >= 0);
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return {};
  if (errno != EWOULDBLOCK) return os_error("lock", path_, errno);
  return unavailable("lock: expected a file that nobody else writes, got one that is being written ({})",
                     path_.string())
      .with_hint("wait for the other process to end, or name another file");
}

Status AppendFile::sync() {
  NIBBLE_CHECK(fd_ >= 0);
  NIBBLE_RETURN_IF_ERROR(inject("sync", path_));
  return ::fdatasync(fd_) == 0 ? Status() : os_error("sync", path_, errno);
}

Status AppendFile::truncate(uint64_t size) {
  NIBBLE_CHECK(fd_ >= 0);
  NIBBLE_RETURN_IF_ERROR(inject("truncate", path_));
  return ::ftruncate(fd_, static_cast<off_t>(size)) == 0 ? Status() : os_error("truncate", path_, errno);
}

Status AppendFile::commit(const Path& path) {
  NIBBLE_CHECK(fd_ >= 0);
  NIBBLE_RETURN_IF_ERROR(flush_and_rename(fd_, path_, path));
  path_ = path;
  return {};
}

Result<OutputFolder> OutputFolder::create(const Path& path) {
  std::error_code error;
  Path clean = path;
  if (!clean.has_filename()) clean = clean.parent_path();  // "out/" means "out"
  if (std::filesystem::exists(clean, error) && !std::filesystem::is_empty(clean, error)) {
    return invalid_argument("output: expected a new or empty folder, got one with files in it ({})", clean.string())
        .with_hint("choose another --output, or remove the folder");
  }
  OutputFolder folder;
  folder.path_ = clean;
  folder.temporary_ = temporary_name(clean);
  NIBBLE_RETURN_IF_ERROR(inject("mkdir", clean));
  if (clean.has_parent_path()) std::filesystem::create_directories(clean.parent_path(), error);
  if (::mkdir(folder.temporary_.c_str(), 0755) != 0) {
    Status status = os_error("create folder", clean, errno);
    folder.temporary_.clear();
    return status;
  }
  return folder;
}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept {
  *this = std::move(other);
}

OutputFolder& OutputFolder::operator=(OutputFolder&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  return *this;
}

OutputFolder::~OutputFolder() {
  discard();
}

void OutputFolder::discard() {
  if (temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
  temporary_.clear();
}

Status OutputFolder::commit() {
  NIBBLE_CHECK(!temporary_.empty());
  NIBBLE_RETURN_IF_ERROR(inject("rename", path_));
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);  // an empty folder of that name, if any
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return os_error("rename", path_, errno);
  temporary_.clear();
  return {};
}

Status replace_folder(const Path& fresh, const Path& target) {
  NIBBLE_RETURN_IF_ERROR(inject("rename", target));
  std::error_code ignored;
  if (!std::filesystem::is_directory(fresh, ignored))
    return not_found("{}: expected a folder, got none", fresh.string());
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    std::filesystem::remove_all(fresh, ignored);  // by now the old contents
    return {};
  }
  std::filesystem::remove_all(target, ignored);
  if (::rename(fresh.c_str(), target.c_str()) != 0) return os_error("rename", target, errno);
  return {};
}

}  // namespace nibble
