// The whole program: arguments in, exit code out.
#ifndef HANMO_CLIENT_COMMAND_LINE_H_
#define HANMO_CLIENT_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "client/console.h"
#include "client/exit_code.h"

namespace hanmo {

// `arguments` are the program's without its name.
ExitCode RunCommandLine(const std::vector<std::string>& arguments, const Console& console);

}  // namespace hanmo

#endif  // HANMO_CLIENT_COMMAND_LINE_H_
