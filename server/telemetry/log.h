// The server's log: one line per event on stderr, as text or JSON. Prompts, texts and pictures
// never go in, nor errors that quote them.
#ifndef HANMO_SERVER_TELEMETRY_LOG_H_
#define HANMO_SERVER_TELEMETRY_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <thread>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace hanmo {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogField {
  absl::string_view key;
  std::variant<absl::string_view, int64_t, double> value;
};

// Lines gather in memory and a thread of its own writes them, a fifth of a second later or at once
// for warnings and errors: a line costs its caller no system call and wakes no thread, which
// loggers that pass on each line do and which is most of what they cost. Thread-safe.
class Log {
 public:
  // Writes to `fd`, which outlives the log.
  Log(LogLevel level, LogFormat format, int fd = 2);
  // Writes what is waiting.
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  bool enabled(LogLevel level) const { return level >= level_; }

  // Never waits: when more than 1 MiB is waiting, lines are dropped and counted in a line.
  void Write(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {})
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::string Render(LogLevel level, absl::string_view message,
                     std::initializer_list<LogField> fields) const;
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Takes what is waiting, with a line about what was dropped.
  std::string Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const LogLevel level_;
  const LogFormat format_;
  const int fd_;

  absl::Mutex mu_;
  absl::CondVar changed_;  // waiting_ is not empty, urgent_ or stopping_
  std::string waiting_ ABSL_GUARDED_BY(mu_);
  int64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  bool urgent_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// `text` in quotes, escaped for JSON; bytes that are no UTF-8 become U+FFFD.
void AppendJsonString(absl::string_view text, std::string* out);

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_LOG_H_
