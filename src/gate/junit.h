// A run as JUnit XML, which CI systems show: a suite for each gate, a test for each play of a case.
#pragma once

#include "base/file.h"
#include "gate/report.h"
#include "gate/runner.h"

namespace nibble::gate {

/// The suite of a gate holds the cases that list it and those that its detectors found something in; cases without a
/// gate of the recipe are in a suite "other". A play that does not pass its gate is a <failure> with what failed and
/// what was found; one that the server did not answer, or that was not played, an <error>. A gate that counts no
/// cases (latency), or too few of them, has a test "verdict"; not judged, it is <skipped>. Each suite's properties
/// hold the gate's numbers. Memory does not grow with the texts.
Status write_junit(const Path& file, const Recipe& recipe, const Records& records, const Report& report, int repeats);

}  // namespace nibble::gate
