#include "client/command_line.h"

#include <memory>
#include <utility>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "absl/strings/str_cat.h"
#include "client/command.h"
#include "client/flag_group.h"
#include "client/help_formatter.h"
#include "client/terminal_text.h"

namespace hanmo {
namespace {

constexpr char kRootExamples[] = R"(Examples:
  hanmo image --model taiyi-sd-tiny --prompt "两座青山，一叶扁舟" --output boat.png
  hanmo text --model wenzhong-gpt2-tiny --user "写一首关于秋山的五言绝句"
  hanmo health --wait 60s && hanmo models

"hanmo COMMAND --help" tells the flags of a command.)";

std::vector<std::unique_ptr<Command>> MakeCommands(CLI::App* root) {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(MakeImageCommand(root));
  commands.push_back(MakeTextCommand(root));
  commands.push_back(MakeCaptionCommand(root));
  commands.push_back(MakeModelsCommand(root));
  commands.push_back(MakeHealthCommand(root));
  commands.push_back(MakeTopCommand(root));
  for (auto& command : MakeBenchCommands(root)) commands.push_back(std::move(command));
  commands.push_back(MakeCancelCommand(root));
  commands.push_back(MakeTokenizeCommand(root));
  commands.push_back(MakeDetokenizeCommand(root));
  for (auto& command : MakeAdminCommands(root)) commands.push_back(std::move(command));
  return commands;
}

void Configure(CLI::App* root) {
  root->require_subcommand(1);
  root->set_help_flag("-h,--help", "print this and exit");
  root->set_version_flag("--version", "hanmo " HANMO_VERSION, "print the version and exit");
  root->formatter(std::make_shared<HelpFormatter>());
  root->footer(absl::StrCat(kRootExamples, "\n\n", ExitCodeHelp()));
}

}  // namespace

void AddOutputFlags(CLI::App* app, bool streams, OutputFlags* flags) {
  FlagGroup group(app, "Output");
  CLI::Option* one = group.Switch({"--json", "", "print one JSON object, also for an error"},
                                  [flags] { flags->json = JsonMode::kOne; });
  if (!streams) return;
  group
      .Switch({"--json-lines", "", "print one JSON object a line for each event"},
              [flags] { flags->json = JsonMode::kLines; })
      ->excludes(one);
  group.Switch({"-q,--quiet", "", "no progress and no summary on stderr"},
               [flags] { flags->quiet = true; });
}

ExitCode RunCommandLine(const std::vector<std::string>& arguments, const Console& console) {
  CLI::App root("Asks a hanmo-server for pictures and texts.", "hanmo");
  Configure(&root);
  const auto commands = MakeCommands(&root);
  // CLI11 reports by exceptions only.
  try {
    root.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    console.out << root.help();
    return ExitCode::kDone;
  } catch (const CLI::CallForVersion& version) {
    console.out << version.what() << "\n";
    return ExitCode::kDone;
  } catch (const CLI::ParseError& error) {
    std::string name = "hanmo";
    for (auto chosen = root.get_subcommands(); !chosen.empty();
         chosen = chosen.front()->get_subcommands()) {
      name += " " + chosen.front()->get_name();
    }
    console.err << SafeForTerminal(absl::StrCat(name, ": ", error.what())) << "\n\"" << name
                << " --help\" tells the flags\n";
    return ExitCode::kUsage;
  }
  for (const auto& command : commands) {
    if (command->app()->parsed()) return command->Run(console);
  }
  return ExitCode::kUsage;
}

}  // namespace hanmo
