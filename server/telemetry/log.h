// The server's log: one line per event on stderr, as text or JSON, written by a thread of its own.
// Prompts, texts and pictures never go in, nor errors that quote them.
#ifndef HANMO_SERVER_TELEMETRY_LOG_H_
#define HANMO_SERVER_TELEMETRY_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"

namespace spdlog {
class logger;
namespace details {
class thread_pool;
}  // namespace details
namespace sinks {
class sink;
}  // namespace sinks
}  // namespace spdlog

namespace hanmo {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogField {
  absl::string_view key;
  std::variant<absl::string_view, int64_t, double> value;
};

// Thread-safe. Writing never waits: when 8192 lines are pending, the oldest are dropped.
class Log {
 public:
  Log(LogLevel level, LogFormat format);
  // For tests: lines go to `sink`.
  Log(LogLevel level, LogFormat format, std::shared_ptr<spdlog::sinks::sink> sink);
  // Writes what is pending.
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  bool enabled(LogLevel level) const { return level >= level_; }

  void Write(LogLevel level, absl::string_view message,
             std::initializer_list<LogField> fields = {}) const;

 private:
  const LogLevel level_;
  const LogFormat format_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::logger> logger_;
};

// `text` in quotes, escaped for JSON; bytes that are no UTF-8 become U+FFFD.
void AppendJsonString(absl::string_view text, std::string* out);

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_LOG_H_
