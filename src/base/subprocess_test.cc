#include "base/subprocess.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/clock.h"

namespace nibble {
namespace {

TEST(Subprocess, TextGoesInAndComesOut) {
  const std::string input(3'000'000, 'x');  // far more than a pipe holds
  const auto result = run_subprocess({"cat"}, input);
  ASSERT_TRUE(result.ok()) << result.status().text();
  EXPECT_EQ(result->exit_code, 0);
  EXPECT_EQ(result->out, input);
}

TEST(Subprocess, WordsAreNotForAShell) {
  const auto result = run_subprocess({"printf", "%s|", "$HOME; echo `id`", "a b"}, "");
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->out, "$HOME; echo `id`|a b|");
}

TEST(Subprocess, TellsHowItEnded) {
  const auto failed = run_subprocess({"sh", "-c", "echo why >&2; exit 3"}, "unread");
  ASSERT_TRUE(failed.ok());
  EXPECT_EQ(failed->exit_code, 3);
  EXPECT_EQ(failed->err, "why\n");
  EXPECT_EQ(run_subprocess({"sh", "-c", "kill -TERM $$"}, "")->exit_code, 128 + 15);
  EXPECT_EQ(run_subprocess({"no-such-program-here"}, "").status().code(), Code::not_found);
}

TEST(Subprocess, AnUnreadInputIsNoError) {
  const auto result = run_subprocess({"true"}, std::string(1'000'000, 'x'));
  ASSERT_TRUE(result.ok()) << result.status().text();
  EXPECT_EQ(result->exit_code, 0);
}

TEST(Subprocess, ATimeoutEndsAllThatItStarted) {
  const Stopwatch watch;
  const auto late = run_subprocess({"sh", "-c", "sleep 30 & sleep 30"}, "", {.timeout_s = 0.2});
  EXPECT_EQ(late.status().code(), Code::unavailable);
  EXPECT_LT(watch.seconds(), 5);
}

TEST(Subprocess, WhatItLeavesBehindDoesNotHoldUs) {
  const Stopwatch watch;
  const auto result = run_subprocess({"sh", "-c", "sleep 30 & echo done"}, "");
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->out, "done\n");
  EXPECT_LT(watch.seconds(), 5);
}

TEST(Subprocess, OutputIsBounded) {
  const auto result = run_subprocess({"sh", "-c", "yes"}, "", {.max_output_bytes = 100'000});
  EXPECT_EQ(result.status().code(), Code::corrupt);
}

TEST(Subprocess, CanBeCancelled) {
  const CancelToken token;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    token.cancel();
  });
  const Stopwatch watch;
  EXPECT_EQ(run_subprocess({"sleep", "30"}, "", {.cancel = token}).status().code(), Code::cancelled);
  EXPECT_LT(watch.seconds(), 5);
  later.join();
}

}  // namespace
}  // namespace nibble
