// Where a command reads and writes; tests put strings in place of the terminal.
#ifndef HANMO_CLIENT_CONSOLE_H_
#define HANMO_CLIENT_CONSOLE_H_

#include <istream>
#include <ostream>

#include "client/interrupts.h"

namespace hanmo {

struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  // Of the terminal that err is.
  int columns = 80;
  Interrupts* interrupts = nullptr;  // required
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_CONSOLE_H_
