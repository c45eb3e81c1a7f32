// Copying what a checkpoint folder holds beside the parts that are written anew.
#pragma once

#include <functional>

#include "base/file.h"

namespace nibble::checkpoint {

/// Copies a file byte for byte; `target` appears when it is whole.
Status copy_bytes(const Path& source, const Path& target);

/// Copies regular files, links to such, and subfolders from `source` to `target`, which exists: those whose path inside
/// the folder `wanted` accepts. Hidden files and folders are left out.
Status copy_folder(const Path& source, const Path& target, const std::function<bool(const Path& file)>& wanted);

/// `invalid_argument` where `output` is `source` or lies inside it: inputs are never changed.
Status check_outside(const Path& source, const Path& output);

}  // namespace nibble::checkpoint
