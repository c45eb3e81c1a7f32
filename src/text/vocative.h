// Names by which a reply addresses its listener.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nibble::text {

/// The names that the vocative detector finds and that are none of `allowed`, as they are written, in the order of
/// their places. `allowed` holds the user's name and capitalised words that are no names; case does not count, and of
/// an entry of several words each is allowed. Fails as detect() does.
Result<std::vector<std::string>> wrong_names(std::string_view text, std::span<const std::string> allowed);

}  // namespace nibble::text
