#include "server/telemetry/log.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

constexpr size_t kMaxWaitingBytes = 1 << 20;
constexpr absl::Duration kGather = absl::Milliseconds(200);
constexpr absl::string_view kLevels[] = {"debug", "info", "warning", "error"};

// Characters that would break a line or its grammar need quotes.
bool IsPlain(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '"' && c != '=' && c != '\\';
  });
}

void AppendTextValue(const LogField& field, std::string* line) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    if (IsPlain(*text)) {
      absl::StrAppend(line, *text);
    } else {
      AppendJsonString(*text, line);
    }
  } else if (const auto* number = std::get_if<int64_t>(&field.value)) {
    absl::StrAppend(line, *number);
  } else {
    absl::StrAppend(line, std::get<double>(field.value));
  }
}

void AppendJsonValue(const LogField& field, std::string* line) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    AppendJsonString(*text, line);
  } else {
    AppendTextValue(field, line);
  }
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* out) {
  std::string valid;
  if (!IsValidUtf8(text)) {
    const size_t whole = AppendUtf8(text, &valid);
    if (whole < text.size()) valid += kReplacementCharacter;
    text = valid;
  }
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppend(out, "\\u00", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

Log::Log(LogLevel level, LogFormat format, int fd)
    : level_(level), format_(format), fd_(fd), thread_([this] { Run(); }) {}

Log::~Log() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void Log::Write(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  if (!enabled(level)) return;
  const std::string line = Render(level, message, fields);
  absl::MutexLock lock(&mu_);
  if (waiting_.size() + line.size() > kMaxWaitingBytes) {
    ++dropped_;
    return;
  }
  const bool first = waiting_.empty();
  waiting_ += line;
  urgent_ = urgent_ || level >= LogLevel::kWarning;
  if (first || urgent_) changed_.Signal();
}

std::string Log::Render(LogLevel level, absl::string_view message,
                        std::initializer_list<LogField> fields) const {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const absl::string_view name = kLevels[static_cast<size_t>(level)];
  std::string line;
  line.reserve(320);
  if (format_ == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", time, "\",\"level\":\"", name, "\",\"message\":");
    AppendJsonString(message, &line);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, ",\"", field.key, "\":");
      AppendJsonValue(field, &line);
    }
    line += "}\n";
  } else {
    absl::StrAppend(&line, time, " ", name, " ", message);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=");
      AppendTextValue(field, &line);
    }
    line += "\n";
  }
  return line;
}

void Log::Run() {
  bool more = true;
  while (more) {
    std::string lines;
    {
      absl::MutexLock lock(&mu_);
      while (waiting_.empty() && !stopping_) changed_.Wait(&mu_);
      const absl::Time until = absl::Now() + kGather;
      while (!urgent_ && !stopping_ && !changed_.WaitWithDeadline(&mu_, until)) {
      }
      more = !stopping_;
      urgent_ = false;
      lines = Take();
    }
    // What cannot be written has nowhere to be told.
    for (size_t done = 0; done < lines.size();) {
      const ssize_t wrote = write(fd_, lines.data() + done, lines.size() - done);
      if (wrote <= 0) break;
      done += static_cast<size_t>(wrote);
    }
  }
}

std::string Log::Take() {
  std::string lines = std::move(waiting_);
  waiting_.clear();
  if (dropped_ > 0) {
    lines += Render(LogLevel::kWarning, "log lines dropped", {{"count", dropped_}});
    dropped_ = 0;
  }
  return lines;
}

}  // namespace hanmo
