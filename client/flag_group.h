// Flags with types, units and ranges, declared once: --help and errors are made from the same
// words.
#ifndef HANMO_CLIENT_FLAG_GROUP_H_
#define HANMO_CLIENT_FLAG_GROUP_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/App.hpp"
#include "absl/time/time.h"

namespace hanmo {

// "--steps", "N", "denoising steps", "the model's"
struct Flag {
  std::string names;
  std::string unit;
  std::string help;
  // Said in --help; nothing is set when the flag is absent. Empty says nothing.
  std::string fallback = "";
};

struct NumberRange {
  double min = 0;
  double max = 0;
  bool above_min = false;  // min itself is outside

  bool Contains(double value) const;  // never NaN
  std::string ToString() const;       // "0 to 100", "above 0, at most 1"
};

// Flags under one heading of a subcommand's help. What a flag's setter gets is within its range.
class FlagGroup {
 public:
  FlagGroup(CLI::App* app, std::string heading) : app_(app), heading_(std::move(heading)) {}

  CLI::Option* Count(Flag flag, uint64_t min, uint64_t max, std::function<void(uint64_t)> set);
  // Any 64-bit seed.
  CLI::Option* Seed(Flag flag, std::function<void(uint64_t)> set);
  CLI::Option* Number(Flag flag, NumberRange range, std::function<void(float)> set);
  // A time such as 30s or 1m30s; `zero` says what 0 means, or is empty where it is not allowed.
  CLI::Option* Time(Flag flag, std::string zero, std::function<void(absl::Duration)> set);
  CLI::Option* Choice(Flag flag, const std::vector<std::string>& choices,
                      std::function<void(const std::string&)> set);
  // UTF-8.
  CLI::Option* Text(Flag flag, std::string* value);
  // UTF-8; may be repeated.
  CLI::Option* Texts(Flag flag, size_t max_count, std::vector<std::string>* values);
  CLI::Option* Switch(Flag flag, std::function<void()> set);

 private:
  // Checks and hands over one value. `check` returns what is wrong, empty for nothing.
  CLI::Option* Add(const Flag& flag, std::function<std::string(const std::string&)> check,
                   std::function<void(const std::string&)> set);
  CLI::Option* Describe(const Flag& flag, const std::string& range, CLI::Option* option);

  CLI::App* const app_;
  const std::string heading_;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_FLAG_GROUP_H_
