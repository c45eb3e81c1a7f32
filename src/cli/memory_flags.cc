#include "cli/memory_flags.h"

#include <cstdio>

namespace nibble::cli {

void add_memory_limit_flag(CLI::App& command, uint64_t& bytes) {
  command
      .add_option("--memory-limit", bytes,
                  "bytes to stay within (8GiB, 500MB, …): an unset --context shrinks to fit, all else is refused "
                  "(default: what the GPU has free)")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber);
}

void print_plan(const engine::MemoryPlan& plan) {
  fmt::print(stderr, "{}", plan.text());
}

Json plan_json(const engine::MemoryPlan& plan) {
  Json items = Json::array();
  for (const engine::MemoryItem& item : plan.items) items.push_back({{"what", item.what}, {"bytes", item.bytes}});
  Json json = {{"where", plan.where},     {"items", std::move(items)}, {"total_bytes", plan.total()},
               {"context", plan.context}, {"slots", plan.slots},       {"unified", plan.unified}};
  if (plan.limit > 0) json["limit_bytes"] = plan.limit;
  return json;
}

}  // namespace nibble::cli
