// What --help looks like.
#ifndef HANMO_CLIENT_HELP_FORMATTER_H_
#define HANMO_CLIENT_HELP_FORMATTER_H_

#include <string>

#include "CLI/App.hpp"
#include "CLI/Formatter.hpp"

namespace hanmo {

// Usage, purpose, the flags by group with the general ones last, then examples. Arguments that are
// flags as well are told once.
class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter();

  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
  std::string make_positionals(const CLI::App* app) const override;

 private:
  std::string Groups(const CLI::App* app) const;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_HELP_FORMATTER_H_
