// A changed Folder as files: what did not change is copied byte for byte.
#pragma once

#include "checkpoint/doctor/folder.h"

namespace nibble::checkpoint::doctor {

/// Writes everything in the folder, subfolders too and hidden entries left out, to `output`, which is new or empty.
/// Weight files with a changed tensor get a new header and the changed bytes, their index the new names. `output`
/// appears complete or not at all. `invalid_argument` for an output inside the folder.
Status write_folder(const Folder& folder, const Path& output);

}  // namespace nibble::checkpoint::doctor
