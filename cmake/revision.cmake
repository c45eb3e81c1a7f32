# Writes OUTPUT: the commit of the sources in SOURCE_DIR, "-dirty" behind it where tracked files differ, "" where there is
# no repository. Run with every build; the file changes only when the commit does.
execute_process(COMMAND git describe --always --exclude=* --abbrev=12 --dirty
  WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
#include "cli/revision.h"

namespace nibble {
const char* const kRevision = "@revision@";
}
]])
