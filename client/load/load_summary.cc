#include "client/load/load_summary.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace hanmo {
namespace {

using nlohmann::ordered_json;

std::string TimeText(double seconds) {
  return seconds < 1 ? absl::StrFormat("%.1f ms", 1e3 * seconds)
                     : absl::StrFormat("%.2f s", seconds);
}

void AddRow(const char* name, const Times& times, std::string* text) {
  if (times.empty()) return;
  absl::StrAppendFormat(text, "%-12s", name);
  for (const double value : {times.Mean(), times.Quantile(.5), times.Quantile(.9),
                             times.Quantile(.99), times.Quantile(1)}) {
    absl::StrAppendFormat(text, "%11s", TimeText(value));
  }
  absl::StrAppend(text, "\n");
}

void AddTimes(const char* name, const Times& times, ordered_json* json) {
  if (times.empty()) return;
  (*json)[name] = {{"mean", times.Mean()},
                   {"p50", times.Quantile(.5)},
                   {"p90", times.Quantile(.9)},
                   {"p99", times.Quantile(.99)},
                   {"max", times.Quantile(1)}};
}

}  // namespace

double Times::Mean() const {
  return std::accumulate(values_.begin(), values_.end(), 0.0) / static_cast<double>(values_.size());
}

double Times::Quantile(double q) const {
  const double place = q * static_cast<double>(values_.size() - 1);
  const auto low = values_.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values_.begin(), low, values_.end());
  if (low + 1 == values_.end()) return *low;
  const double next = *std::min_element(low + 1, values_.end());
  return *low + (next - *low) * (place - static_cast<double>(low - values_.begin()));
}

void LoadSummary::Add(const Outcome& outcome) {
  if (outcome.due < options_.from) return;
  ++sent_;
  first_due_ = std::min(first_due_, outcome.due);
  last_end_ = std::max(last_end_, outcome.due + outcome.latency);
  late_.Add(outcome.late);
  if (outcome.cut) {
    ++cut_;
    return;
  }
  if (!outcome.status.ok()) {
    if (first_failure_.ok()) first_failure_ = outcome.status;
    const auto code = static_cast<absl::StatusCode>(outcome.status.error_code());
    ++failed_[absl::StatusCodeToString(code)];
    return;
  }
  ++ok_;
  good_ += outcome.latency <= options_.slo;
  latency_.Add(outcome.latency);
  pictures_ += outcome.pictures;
  steps_ += outcome.steps;
  if (!outcome.deltas.empty()) first_token_.Add(outcome.deltas.front().at);
  std::map<uint32_t, absl::Duration> last;  // by index of the text
  for (const Delta& delta : outcome.deltas) {
    tokens_ += delta.tokens;
    const auto [before, first] = last.try_emplace(delta.index, delta.at);
    if (!first) inter_token_.Add(delta.at - before->second);
    before->second = delta.at;
  }
}

double LoadSummary::Seconds() const {
  if (sent_ == 0) return 0;
  return absl::ToDoubleSeconds(last_end_ - std::max(first_due_, options_.from));
}

std::string LoadSummary::Text() const {
  std::string text = absl::StrCat(sent_, " sent, ", ok_, " ok, ", failed(), " failed");
  if (!failed_.empty()) {
    absl::StrAppend(&text, " (", absl::StrJoin(failed_, ", ", absl::PairFormatter(" ")), ")");
  }
  if (cut_ > 0) absl::StrAppend(&text, ", ", cut_, " cut off");
  absl::StrAppendFormat(&text, " in %.1f s\n", Seconds());
  if (ok_ > 0) {
    absl::StrAppendFormat(&text, "%-12s%11s%11s%11s%11s%11s\n", "", "mean", "p50", "p90", "p99",
                          "max");
  }
  AddRow("latency", latency_, &text);
  AddRow("first token", first_token_, &text);
  AddRow("inter-token", inter_token_, &text);
  if (ok_ > 0) AddRow("sent late", late_, &text);
  const double seconds = Seconds();
  if (ok_ == 0 || seconds <= 0) return text;
  absl::StrAppendFormat(&text, "%.2f requests/s", ok_ / seconds);
  if (tokens_ > 0) absl::StrAppendFormat(&text, ", %.1f tokens/s", tokens_ / seconds);
  if (pictures_ > 0) {
    absl::StrAppendFormat(&text, ", %.2f pictures/s, %.1f steps/s", pictures_ / seconds,
                          steps_ / seconds);
  }
  absl::StrAppend(&text, "\n");
  if (has_slo()) {
    absl::StrAppendFormat(&text, "%.1f %% of those sent are ok within %s: %.2f requests/s\n",
                          100.0 * good_ / sent_, absl::FormatDuration(options_.slo),
                          good_ / seconds);
  }
  return text;
}

ordered_json LoadSummary::Json() const {
  const double seconds = Seconds();
  ordered_json json = {
      {"seconds", seconds}, {"sent", sent_}, {"ok", ok_}, {"cut", cut_}, {"failed", failed_}};
  AddTimes("latency_s", latency_, &json);
  AddTimes("first_token_s", first_token_, &json);
  AddTimes("inter_token_s", inter_token_, &json);
  AddTimes("late_s", late_, &json);
  if (seconds <= 0) return json;
  json["requests_per_s"] = ok_ / seconds;
  if (tokens_ > 0) json["tokens_per_s"] = tokens_ / seconds;
  if (pictures_ > 0) {
    json["pictures_per_s"] = pictures_ / seconds;
    json["steps_per_s"] = steps_ / seconds;
  }
  if (has_slo()) {
    json["slo_s"] = absl::ToDoubleSeconds(options_.slo);
    json["within_slo"] = static_cast<double>(good_) / sent_;
    json["goodput_per_s"] = good_ / seconds;
  }
  return json;
}

}  // namespace hanmo
