#include "base/machine.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Machine, ReadsWhatIsAvailable) {
  EXPECT_EQ(available_memory_in("MemTotal:  8 kB\nMemFree: 2 kB\nMemAvailable:   123456 kB\nBuffers: 0 kB\n"),
            uint64_t{123456} * 1024);
  EXPECT_EQ(available_memory_in("MemAvailable: 0 kB"), 0u);
  for (const char* text : {"", "MemFree: 2 kB\n", "MemAvailable:", "MemAvailable:    ", "MemAvailable: many kB\n",
                           "MemAvailable: 12 MB\n", "MemAvailable: 99999999999999999999999 kB\n", "XMemAvailable: 1 kB",
                           "MemAvailable: 18446744073709551615 kB\n"}) {
    EXPECT_FALSE(available_memory_in(text)) << text;
  }
  EXPECT_GT(available_memory_bytes().value_or(UINT64_MAX), 1u << 20);
}

}  // namespace
}  // namespace nibble
