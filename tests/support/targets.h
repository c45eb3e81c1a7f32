// Runs a test body on every SIMD target that this build has and this machine can run.
#pragma once

#include <gtest/gtest.h>

#include <hwy/highway.h>
#include <hwy/targets.h>

namespace nibble::test {

/// Puts the choice of target back when the test ends.
class TargetScope {
 public:
  explicit TargetScope(int64_t target) { choose(target); }
  ~TargetScope() { choose(0); }
  TargetScope(const TargetScope&) = delete;
  TargetScope& operator=(const TargetScope&) = delete;

 private:
  static void choose(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

template <class Body>
void for_each_target(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const TargetScope scope(target);
    body();
  }
}

}  // namespace nibble::test
