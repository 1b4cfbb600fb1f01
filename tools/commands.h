// What each command does, from options to what it prints.
#pragma once

#include <string>

#include "tools/options.h"

namespace nf::tools {

/// Runs the command; `program` is how to call this program again. Results go to stdout, progress to
/// stderr. Throws UsageError, DoesNotFit, Interrupted, and what the library throws.
void run_command(const CommandLine& line, const std::string& program);

}  // namespace nf::tools
