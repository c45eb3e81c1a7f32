#include "tests/support/command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "base/subprocess.h"

extern char** environ;

namespace nibble::test {

Outcome nibble_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {NIBBLE_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  auto ended = run_subprocess(words, "");
  EXPECT_TRUE(ended.ok()) << ended.status().text();
  if (!ended.ok()) return {.exit_code = -1, .out = {}, .err = {}};
  return {.exit_code = ended->exit_code, .out = std::move(ended->out), .err = std::move(ended->err)};
}

std::optional<int> nibble_signalled(const std::vector<std::string>& arguments, double seconds, int signal,
                                    const Path& begun) {
  std::vector<std::string> words = {NIBBLE_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  }
  pid_t pid = 0;
  EXPECT_EQ(::posix_spawn(&pid, argv[0], &files, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&files);
  constexpr double kPatience_s = 60;
  for (const Stopwatch watch; !begun.empty() && !std::filesystem::exists(begun) && watch.seconds() < kPatience_s;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  ::kill(pid, signal);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? std::optional<int>(WEXITSTATUS(status)) : std::nullopt;
}

int run_killed(const std::vector<std::string>& arguments, double whole_s, int kills, Rng& rng) {
  int killed = 0;
  for (; killed < kills; ++killed) {
    const auto code = nibble_signalled(arguments, whole_s * rng.uniform(0.05F, 0.9F), SIGKILL);
    if (code) return *code == 0 ? killed : -1;
  }
  const Outcome rest = nibble_command(arguments);
  EXPECT_EQ(rest.exit_code, 0) << rest.out << rest.err;
  return rest.exit_code == 0 ? killed : -1;
}

Scratch::Scratch() {
  static std::atomic<int> counter = 0;
  dir_ = std::filesystem::temp_directory_path() /
         ("nibble-test-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
  std::filesystem::create_directories(dir_);
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

}  // namespace nibble::test
