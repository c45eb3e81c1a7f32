// The folder in which a run of gate, converse or bench leaves its files, and the store beside it.
#pragma once

#include <string>

#include "base/file.h"
#include "gate/run_store.h"

namespace nibble::cli {

/// The time of day as runs note it: 2026-11-28T16:20:00Z.
std::string utc_now();

/// Makes the folder where it is not there; `command` stands before an error.
Status create_run_folder(const Path& folder, const std::string& command);

/// Keeps the run for nibble runs in the folder that holds its own, under the folder's name and the id that it has.
Status remember_run(const Path& folder, gate::StoredRun run);

}  // namespace nibble::cli
