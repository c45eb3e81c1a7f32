// The commit that this binary was built from.
#pragma once

namespace nibble {

/// Twelve digits, with "-dirty" where the sources differed; "" where they were no repository.
extern const char* const kRevision;

}  // namespace nibble
