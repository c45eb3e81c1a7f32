#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/clock.h"

extern char** environ;

namespace nibble {
namespace {

constexpr size_t kMaxErrorBytes = size_t{64} << 10;
constexpr int kPoll_ms = 20;

// One end of a pipe; closed at the end of its life.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  ~Fd() { close(); }
  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  // Close-on-exec, so that programs started beside this one do not keep our pipes open.
  if (::pipe2(ends, O_CLOEXEC) != 0) return io("pipe: {}", std::strerror(errno));
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

// Writing to a program that has gone must fail with EPIPE, not end us: SIGPIPE is blocked in this thread while we
// write, and one that came is taken out of the queue again.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &old_);
  }
  ~NoPipeSignal() {
    const timespec now{};
    while (::sigtimedwait(&pipe_, nullptr, &now) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &old_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_, old_;
};

// What runs under `pid` is killed with all that it started.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() { wait(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void kill() const { ::kill(-pid_, SIGKILL); }
  int wait() {
    if (waited_) return status_;
    waited_ = true;
    while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    kill();
    return status_;
  }
  bool ended() {
    if (waited_) return true;
    if (::waitpid(pid_, &status_, WNOHANG) != pid_) return false;
    waited_ = true;
    kill();
    return true;
  }

 private:
  pid_t pid_;
  int status_ = 0;
  bool waited_ = false;
};

Result<pid_t> spawn(const std::vector<std::string>& words, const Pipe& in, const Pipe& out, const Pipe& err) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, in.read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, out.write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, err.write.get(), STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT) return not_found("{}: expected a program, got none", words[0]);
  if (error != 0) return io("{}: {}", words[0], std::strerror(error));
  return pid;
}

// Reads what is there; false at the end of the stream.
bool read_some(const Fd& fd, std::string& out, size_t most) {
  std::array<char, 65536> bytes;
  const ssize_t n = ::read(fd.get(), bytes.data(), bytes.size());
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  out.append(bytes.data(), std::min(static_cast<size_t>(n), most > out.size() ? most - out.size() : 0));
  return n > 0;
}

}  // namespace

Result<SubprocessResult> run_subprocess(const std::vector<std::string>& words, std::string_view input,
                                        const SubprocessOptions& options) {
  if (words.empty()) return invalid_argument("subprocess: expected a program, got none");
  NIBBLE_TRY(in, make_pipe());
  NIBBLE_TRY(out, make_pipe());
  NIBBLE_TRY(err, make_pipe());
  NIBBLE_TRY(pid, spawn(words, in, out, err));
  Child child(pid);
  in.read.close();
  out.write.close();
  err.write.close();
  ::fcntl(in.write.get(), F_SETFL, O_NONBLOCK);
  const NoPipeSignal no_signal;
  const Stopwatch watch;
  SubprocessResult result;
  const auto stop = [&](Status status) {
    child.kill();
    return status;
  };
  if (input.empty()) in.write.close();
  while (out.read.open() || err.read.open() || !child.ended()) {
    // poll() passes over negative descriptors.
    std::array<pollfd, 3> polled = {pollfd{in.write.get(), POLLOUT, 0}, pollfd{out.read.get(), POLLIN, 0},
                                    pollfd{err.read.get(), POLLIN, 0}};
    ::poll(polled.data(), polled.size(), kPoll_ms);
    if (options.cancel.cancelled()) return stop(cancelled("{}: cancelled", words[0]));
    if (options.timeout_s > 0 && watch.seconds() > options.timeout_s) {
      return stop(unavailable("{}: expected an end within {} s", words[0], options.timeout_s));
    }
    if (polled[0].revents != 0) {
      const ssize_t n = ::write(in.write.get(), input.data(), input.size());
      if (n > 0) input.remove_prefix(static_cast<size_t>(n));
      if (input.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) in.write.close();
    }
    if (polled[1].revents != 0 && !read_some(out.read, result.out, options.max_output_bytes + 1)) out.read.close();
    if (polled[2].revents != 0 && !read_some(err.read, result.err, kMaxErrorBytes)) err.read.close();
    if (result.out.size() > options.max_output_bytes) {
      return stop(corrupt("{}: expected at most {} bytes of output", words[0], options.max_output_bytes));
    }
    // What it left running in the background may hold the pipes: its own end is the end.
    if (child.ended() && polled[1].revents == 0 && polled[2].revents == 0) break;
  }
  const int status = child.wait();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace nibble
