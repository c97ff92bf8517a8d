// A subcommand of hanmo. Each is made by a function that declares it and its flags on the app, and
// runs once the flags are parsed.
#ifndef HANMO_CLIENT_COMMAND_H_
#define HANMO_CLIENT_COMMAND_H_

#include <memory>
#include <vector>

#include "CLI/App.hpp"
#include "client/console.h"
#include "client/exit_code.h"
#include "client/json_mode.h"

namespace hanmo {

class Command {
 public:
  virtual ~Command() = default;
  // Reports its errors itself.
  virtual ExitCode Run(const Console& console) = 0;

  CLI::App* app() const { return app_; }

 protected:
  explicit Command(CLI::App* app) : app_(app) {}

 private:
  CLI::App* const app_;
};

struct OutputFlags {
  JsonMode json = JsonMode::kOff;
  bool quiet = false;
};

// --json; for commands that stream also --json-lines and --quiet.
void AddOutputFlags(CLI::App* app, bool streams, OutputFlags* flags);

std::unique_ptr<Command> MakeImageCommand(CLI::App* root);
std::unique_ptr<Command> MakeTextCommand(CLI::App* root);
std::unique_ptr<Command> MakeCaptionCommand(CLI::App* root);
std::unique_ptr<Command> MakeModelsCommand(CLI::App* root);
std::unique_ptr<Command> MakeHealthCommand(CLI::App* root);
std::unique_ptr<Command> MakeTopCommand(CLI::App* root);
std::unique_ptr<Command> MakeCancelCommand(CLI::App* root);
std::unique_ptr<Command> MakeTokenizeCommand(CLI::App* root);
std::unique_ptr<Command> MakeDetokenizeCommand(CLI::App* root);
// bench text, bench image.
std::vector<std::unique_ptr<Command>> MakeBenchCommands(CLI::App* root);
// load, unload, label, drain.
std::vector<std::unique_ptr<Command>> MakeAdminCommands(CLI::App* root);

}  // namespace hanmo

#endif  // HANMO_CLIENT_COMMAND_H_
