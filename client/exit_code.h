// What the program ends with; scripts rely on these numbers.
#ifndef HANMO_CLIENT_EXIT_CODE_H_
#define HANMO_CLIENT_EXIT_CODE_H_

#include <string>

#include "grpcpp/support/status.h"

namespace hanmo {

enum class ExitCode {
  kDone = 0,
  kUsage = 1,         // a flag, or a field of the request that the server refused
  kFile = 2,          // a file could not be read or written
  kNotFound = 3,      // no such model or service
  kUnavailable = 4,   // the server cannot be reached, or is not serving
  kTimeout = 5,       // --timeout or --wait passed
  kBusy = 6,          // the server has no room; a retry can help
  kDenied = 7,        // who calls is unknown or not allowed to
  kUnable = 8,        // the server or the model cannot do this
  kServerFault = 9,   // the server failed
  kInterrupted = 130  // Ctrl-C or TERM
};

ExitCode ExitCodeOf(grpc::StatusCode code);

// "INVALID_ARGUMENT" and so on.
std::string CodeName(grpc::StatusCode code);

// The table of --help.
std::string ExitCodeHelp();

}  // namespace hanmo

#endif  // HANMO_CLIENT_EXIT_CODE_H_
