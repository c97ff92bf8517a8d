#include "client/help_formatter.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// CLI11's own group, which has --help.
constexpr char kGeneral[] = "Options";

}  // namespace

HelpFormatter::HelpFormatter() {
  column_width(30);
  label("SUBCOMMAND", "COMMAND");
  label("OPTIONS", "FLAGS");
  label("Positionals", "Arguments");
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode mode) const {
  std::string help =
      absl::StrCat(make_usage(app, name), "\n", make_description(app), make_positionals(app));
  if (app->get_subcommands({}).empty()) {
    absl::StrAppend(&help, Groups(app));
  } else {
    absl::StrAppend(&help, make_subcommands(app, mode), Groups(app));
  }
  return absl::StrCat(help, "\n", make_footer(app));
}

std::string HelpFormatter::make_positionals(const CLI::App* app) const {
  const auto options = app->get_options([](const CLI::Option* option) {
    return option->get_positional() && !option->nonpositional();
  });
  return options.empty() ? "" : make_group(get_label("Positionals"), true, options);
}

std::string HelpFormatter::Groups(const CLI::App* app) const {
  std::vector<std::string> groups = app->get_groups();
  const auto general = std::find(groups.begin(), groups.end(), kGeneral);
  if (general != groups.end()) std::rotate(general, general + 1, groups.end());
  std::string text;
  for (const std::string& group : groups) {
    const auto options = app->get_options([&group](const CLI::Option* option) {
      return option->get_group() == group && option->nonpositional();
    });
    if (options.empty()) continue;
    absl::StrAppend(&text, make_group(group == kGeneral ? "General" : group, false, options));
  }
  return text;
}

}  // namespace hanmo
