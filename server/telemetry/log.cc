#include "server/telemetry/log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"
#include "spdlog/async_logger.h"
#include "spdlog/details/thread_pool.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace hanmo {
namespace {

constexpr size_t kPendingLines = 8192;

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

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

Log::Log(LogLevel level, LogFormat format)
    : Log(level, format, std::make_shared<spdlog::sinks::stderr_sink_mt>()) {}

Log::Log(LogLevel level, LogFormat format, std::shared_ptr<spdlog::sinks::sink> sink)
    : level_(level),
      format_(format),
      pool_(std::make_shared<spdlog::details::thread_pool>(kPendingLines, 1)),
      logger_(std::make_shared<spdlog::async_logger>(
          "hanmo", std::move(sink), pool_, spdlog::async_overflow_policy::overrun_oldest)) {
  logger_->set_level(SpdlogLevel(level));
  logger_->flush_on(spdlog::level::warn);
  logger_->set_pattern(format == LogFormat::kJson
                           ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                           : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                       spdlog::pattern_time_type::utc);
}

Log::~Log() { logger_->flush(); }

void Log::Write(LogLevel level, absl::string_view message,
                std::initializer_list<LogField> fields) const {
  if (!enabled(level)) return;
  std::string line;
  line.reserve(256);
  if (format_ == LogFormat::kJson) {
    line += "\"message\":";
    AppendJsonString(message, &line);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, ",\"", field.key, "\":");
      AppendJsonValue(field, &line);
    }
  } else {
    absl::StrAppend(&line, message);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=");
      AppendTextValue(field, &line);
    }
  }
  logger_->log(SpdlogLevel(level), line);
}

}  // namespace hanmo
