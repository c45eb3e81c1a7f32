#pragma once

namespace nibble {

/// Whether the kernels of this build were compiled for the current GPU.
bool has_code_for_this_device();

}  // namespace nibble
