// Memory plan: what serving a model reserves, item by item, before anything of it is reserved.
//
// On a GPU the items are what start_engine allocates there, to some percent: graphs and the allocator's rounding are
// estimates. On a CPU weights are pages of the mapped file, which the system may take back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/load.h"
#include "engine/local_engine.h"

namespace nibble::engine {

struct MemoryItem {
  std::string what;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::string where;              // "cuda:0, NVIDIA H200" or "cpu"
  std::vector<MemoryItem> items;  // none of them 0
  uint64_t limit = 0;             // what they must stay within; 0: nobody said
  std::string limit_words;        // whose limit it is: "--memory-limit", "free"
  int64_t context = 0, slots = 1;
  bool context_reduced = false;  // below what is usual, so that it fits
  bool unified = false;          // the GPU shares the machine's memory

  uint64_t total() const;
  /// A line an item, the total and of how much, and what was done to make it fit.
  std::string text() const;
};

/// A plan without items: where, and what it must stay within. As open_device for a GPU.
Result<MemoryPlan> empty_plan(Device device, uint64_t memory_limit);

/// Checks the context and the limit. Without a limit: on a GPU what is free there, less 15 % of all memory where the
/// GPU shares the machine's. Without a context: as usual, or as long as fits. `out_of_memory` names the flags that make
/// it fit; as open_device for a GPU.
Result<MemoryPlan> plan_memory(const checkpoint::LoadedModel& model, const EngineOptions& options);

/// ok, or `out_of_memory` where the plan is above its limit.
Status fits(const MemoryPlan& plan, const std::string& hint);

}  // namespace nibble::engine
