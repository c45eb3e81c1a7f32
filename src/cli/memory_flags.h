// --memory-limit, and the memory plan as commands show it.
#pragma once

#include "cli/command.h"
#include "engine/memory_plan.h"
#include "io/json.h"

namespace nibble::cli {

void add_memory_limit_flag(CLI::App& command, uint64_t& bytes);

/// On stderr.
void print_plan(const engine::MemoryPlan& plan);
Json plan_json(const engine::MemoryPlan& plan);

}  // namespace nibble::cli
