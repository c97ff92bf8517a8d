#include "client/flag_group.h"

#include <algorithm>
#include <utility>

#include "CLI/Validators.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/terminal_text.h"

namespace hanmo {
namespace {

std::string MustBe(const std::string& range, const std::string& text) {
  return absl::StrCat("must be ", range, ", got \"", text, "\"");
}

std::string CheckUtf8(const std::string& text) { return IsUtf8(text) ? "" : "must be valid UTF-8"; }

CLI::Validator Checked(std::function<std::string(const std::string&)> check) {
  return CLI::Validator([check = std::move(check)](std::string& text) { return check(text); }, "");
}

// CLI11 indents what follows a line feed, but breaks no lines itself.
std::string Wrapped(const std::string& text) {
  constexpr size_t kHelpColumns = 66;
  std::string wrapped;
  size_t column = 0;
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column > 0 && column + 1 + word.size() > kHelpColumns) {
      wrapped += '\n';
      column = 0;
    } else if (column > 0) {
      wrapped += ' ';
      ++column;
    }
    absl::StrAppend(&wrapped, word);
    column += word.size();
  }
  return wrapped;
}

}  // namespace

bool NumberRange::Contains(double value) const {
  return (above_min ? value > min : value >= min) && value <= max;
}

std::string NumberRange::ToString() const {
  return above_min ? absl::StrCat("above ", min, ", at most ", max)
                   : absl::StrCat(min, " to ", max);
}

CLI::Option* FlagGroup::Describe(const Flag& flag, const std::string& range, CLI::Option* option) {
  std::vector<std::string> facts;
  if (!range.empty()) facts.push_back(range);
  if (!flag.fallback.empty()) facts.push_back(absl::StrCat("default: ", flag.fallback));
  std::string help = flag.help;
  if (!facts.empty()) absl::StrAppend(&help, " (", absl::StrJoin(facts, "; "), ")");
  help = Wrapped(help);
  // Not empty: an empty text would bring CLI11's own words back.
  option->option_text(flag.unit.empty() ? " " : flag.unit);
  return option->description(help)->group(heading_);
}

CLI::Option* FlagGroup::Add(const Flag& flag, std::function<std::string(const std::string&)> check,
                            std::function<void(const std::string&)> set) {
  return app_->add_option_function<std::string>(flag.names, std::move(set))
      ->check(Checked(std::move(check)));
}

CLI::Option* FlagGroup::Count(Flag flag, uint64_t min, uint64_t max,
                              std::function<void(uint64_t)> set) {
  const std::string range = max == UINT64_MAX   ? absl::StrCat(min, " to 2^64 - 1")
                            : max == UINT32_MAX ? absl::StrCat(min, " or more")
                                                : absl::StrCat(min, " to ", max);
  const auto check = [=](const std::string& text) {
    uint64_t value = 0;
    // SimpleAtoi would take "-1" for an unsigned type as an error too, but also " 7".
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
    if (digits && absl::SimpleAtoi(text, &value) && value >= min && value <= max)
      return std::string();
    return MustBe(absl::StrCat("a whole number, ", range), text);
  };
  return Describe(flag, range, Add(flag, check, [set = std::move(set)](const std::string& text) {
                    uint64_t value = 0;
                    if (absl::SimpleAtoi(text, &value)) set(value);
                  }));
}

CLI::Option* FlagGroup::Seed(Flag flag, std::function<void(uint64_t)> set) {
  return Count(std::move(flag), 0, UINT64_MAX, std::move(set));
}

CLI::Option* FlagGroup::Number(Flag flag, NumberRange range, std::function<void(float)> set) {
  const auto check = [range](const std::string& text) {
    float value = 0;
    if (absl::SimpleAtof(text, &value) && range.Contains(value)) return std::string();
    return MustBe(absl::StrCat("a number, ", range.ToString()), text);
  };
  return Describe(flag, range.ToString(),
                  Add(flag, check, [set = std::move(set)](const std::string& text) {
                    float value = 0;
                    if (absl::SimpleAtof(text, &value)) set(value);
                  }));
}

CLI::Option* FlagGroup::Time(Flag flag, std::string zero, std::function<void(absl::Duration)> set) {
  const bool zero_allowed = !zero.empty();
  const auto check = [zero_allowed](const std::string& text) {
    absl::Duration parsed;
    if (absl::ParseDuration(text, &parsed) && parsed < absl::InfiniteDuration() &&
        (zero_allowed ? parsed >= absl::ZeroDuration() : parsed > absl::ZeroDuration())) {
      return std::string();
    }
    return MustBe("a time such as 500ms, 30s or 2m", text);
  };
  return Describe(flag, zero_allowed ? absl::StrCat("0 ", zero) : "",
                  Add(flag, check, [set = std::move(set)](const std::string& text) {
                    absl::Duration value;
                    if (absl::ParseDuration(text, &value)) set(value);
                  }));
}

CLI::Option* FlagGroup::Choice(Flag flag, const std::vector<std::string>& choices,
                               std::function<void(const std::string&)> set) {
  const std::string list = absl::StrJoin(choices, ", ");
  const auto check = [choices, list](const std::string& text) {
    const bool known = std::find(choices.begin(), choices.end(), text) != choices.end();
    return known ? std::string() : MustBe(absl::StrCat("one of ", list), text);
  };
  return Describe(flag, list, Add(flag, check, std::move(set)));
}

CLI::Option* FlagGroup::Text(Flag flag, std::string* value) {
  return Describe(flag, "",
                  Add(flag, CheckUtf8, [value](const std::string& text) { *value = text; }));
}

CLI::Option* FlagGroup::Texts(Flag flag, size_t max_count, std::vector<std::string>* values) {
  CLI::Option* option = app_->add_option(flag.names, *values)
                            ->expected(0, static_cast<int>(max_count))
                            ->allow_extra_args(false)
                            ->check(Checked(CheckUtf8));
  return Describe(flag, max_count > 1 ? absl::StrCat("at most ", max_count) : "", option);
}

CLI::Option* FlagGroup::Switch(Flag flag, std::function<void()> set) {
  CLI::Option* option = app_->add_flag_callback(flag.names, std::move(set));
  return Describe(flag, "", option);
}

}  // namespace hanmo
