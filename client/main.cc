// hanmo: the command line of hanmo-server.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "client/command_line.h"

int main(int argc, char** argv) {
  // gRPC writes its own lines to stderr, of what the status says in one; 0 leaves a user's choice.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  std::ios::sync_with_stdio(false);
  winsize size = {};
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::strcmp(term, "dumb") == 0;
  const bool measured = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  hanmo::Interrupts interrupts;
  const hanmo::Console console = {.in = std::cin,
                                  .out = std::cout,
                                  .err = std::cerr,
                                  .out_is_terminal = isatty(STDOUT_FILENO) == 1,
                                  .err_is_terminal = isatty(STDERR_FILENO) == 1 && !dumb,
                                  .columns = measured ? size.ws_col : 80,
                                  .interrupts = &interrupts};
  hanmo::ExitCode code =
      hanmo::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc), console);
  std::cout.flush();
  // A full disk or the like: what was printed is not whole.
  if (code == hanmo::ExitCode::kDone && !std::cout) {
    std::cerr << "hanmo: stdout could not be written\n";
    code = hanmo::ExitCode::kFile;
  }
  return static_cast<int>(code);
}
