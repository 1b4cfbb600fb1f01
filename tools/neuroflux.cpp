// The program: plan, train, compare, eval, export, report and kernels.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "tools/commands.h"
#include "tools/errors.h"
#include "tools/options.h"
#include "tools/thread_wait.h"

namespace {

using namespace nf::tools;

int report(std::string message, ExitCode code) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "neuroflux: %s\n", message.c_str());
  return code;
}

void run(const std::string& program, const std::vector<std::string>& arguments) {
  if (arguments.empty())
    fail_usage("no command; try plan, train, compare, eval, export, report, kernels, or --help");
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h" || first == "help") {
    std::fputs(program_help().c_str(), stdout);
    return;
  }
  if (first == "--version") {
    std::puts("neuroflux " NF_VERSION);
    return;
  }
  const Command command = parse_command(first);
  const auto parsed = parse_command_line(command, {arguments.begin() + 1, arguments.end()});
  if (const auto* help = std::get_if<HelpText>(&parsed))
    std::fputs(help->text.c_str(), stdout);
  else
    run_command(std::get<CommandLine>(parsed), program);
}

}  // namespace

int main(int argc, char** argv) {
  limit_thread_spinning(argv);
  try {
    run(argv[0], std::vector<std::string>(argv + 1, argv + argc));
    return kDone;
  } catch (const UsageError& error) {
    return report(error.what(), kUsage);
  } catch (const nf::DoesNotFit& error) {
    return report(error.what(), kDoesNotFit);
  } catch (const Interrupted& error) {
    return report(error.what(), kInterrupted);
  } catch (const std::bad_alloc&) {
    return report("the machine has not enough memory left", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}
