// Tools that answer from a list.
#pragma once

#include <vector>

#include "base/result.h"
#include "gate/case.h"
#include "gate/reply.h"

namespace nibble::gate {

/// The tools of one turn. Calls are answered in their order, each by the first mock that fits and is not used up.
class MockTools {
 public:
  /// `mocks` must live longer.
  explicit MockTools(const std::vector<Mock>& mocks) : mocks_(mocks), used_(mocks.size(), 0) {}

  /// The mock that answers; null where none fits, for which a tool says kNotFound. Fails where a regex does.
  Result<const Mock*> answer(const ToolCall& call);

  static constexpr const char* kNotFound = R"({"error":"not found"})";

 private:
  const std::vector<Mock>& mocks_;
  std::vector<int> used_;
};

}  // namespace nibble::gate
