#include "client/prometheus_text.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace hanmo {
namespace {

// Reads one line from left to right. What does not fit gives false.
class LineReader {
 public:
  explicit LineReader(absl::string_view line) : rest_(line) {}

  bool Sample(MetricSample* sample) {
    if (!Name(/*colons=*/true, &sample->name)) return false;
    SkipBlanks();
    if (Take('{') && !Labels(&sample->labels)) return false;
    const std::vector<absl::string_view> words =
        absl::StrSplit(rest_, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t time_stamp = 0;
    if (words.empty() || words.size() > 2 || !absl::SimpleAtod(words[0], &sample->value)) {
      return false;
    }
    return words.size() == 1 || absl::SimpleAtoi(words[1], &time_stamp);
  }

 private:
  void SkipBlanks() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t')) rest_.remove_prefix(1);
  }

  bool Take(char wanted) {
    if (rest_.empty() || rest_[0] != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool Name(bool colons, std::string* name) {
    while (!rest_.empty()) {
      const char c = rest_[0];
      const bool fits = absl::ascii_isalpha(c) || c == '_' || (colons && c == ':') ||
                        (!name->empty() && absl::ascii_isdigit(c));
      if (!fits) break;
      name->push_back(c);
      rest_.remove_prefix(1);
    }
    return !name->empty();
  }

  // Behind the opening brace; a comma may follow the last label.
  bool Labels(std::map<std::string, std::string>* labels) {
    while (true) {
      SkipBlanks();
      if (Take('}')) return true;
      std::string name, value;
      if (!Name(/*colons=*/false, &name)) return false;
      SkipBlanks();
      if (!Take('=')) return false;
      SkipBlanks();
      if (!Quoted(&value)) return false;
      (*labels)[name] = std::move(value);
      SkipBlanks();
      if (!Take(',')) return Take('}');
    }
  }

  bool Quoted(std::string* value) {
    if (!Take('"')) return false;
    while (!rest_.empty()) {
      if (Take('"')) return true;
      if (!Take('\\')) {
        value->push_back(rest_[0]);
      } else if (rest_.empty()) {
        return false;
      } else if (rest_[0] == 'n') {
        value->push_back('\n');
      } else if (rest_[0] == '\\' || rest_[0] == '"') {
        value->push_back(rest_[0]);
      } else {
        return false;
      }
      rest_.remove_prefix(1);
    }
    return false;
  }

  absl::string_view rest_;
};

}  // namespace

absl::StatusOr<std::vector<MetricSample>> ParsePrometheusText(absl::string_view text) {
  std::vector<MetricSample> samples;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    MetricSample sample;
    if (!LineReader(line).Sample(&sample)) {
      return absl::DataLossError(absl::StrCat("line ", number, " of the metrics is malformed"));
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace hanmo
