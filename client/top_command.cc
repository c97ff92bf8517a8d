// hanmo top: what a server is doing, from its Prometheus endpoint.
#include <sys/ioctl.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/command.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "client/http_get.h"
#include "client/server_view.h"
#include "client/terminal_text.h"

namespace hanmo {
namespace {

constexpr char kTopExamples[] = R"(Examples:
  hanmo top
  hanmo top --metrics server:8002 --interval 10s
  hanmo top --once --json | jq '.models[] | {name, waiting, latency_p99_s}'

Rates and quantiles are of the time between two readings. BUSY is the share of that time in which
the devices worked, STALLED the share in which one stood still though there was work.)";

// The terminal's other screen while it lives; what was there before comes back.
class Screen {
 public:
  explicit Screen(std::ostream* out) : out_(*out) {
    // Other screen, no cursor, and long lines are cut, not wrapped.
    out_ << "\x1b[?1049h\x1b[?25l\x1b[?7l" << std::flush;
  }
  ~Screen() { out_ << "\x1b[?7h\x1b[?25h\x1b[?1049l" << std::flush; }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void Draw(const std::string& text) {
    winsize size = {};
    const bool measured = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
    std::vector<std::string> lines = absl::StrSplit(text, '\n');
    if (measured && lines.size() > size.ws_row) lines.resize(size.ws_row);
    // Over what is there, so that nothing flickers.
    out_ << "\x1b[H";
    for (size_t i = 0; i < lines.size(); ++i)
      out_ << (i == 0 ? "" : "\r\n") << lines[i] << "\x1b[K";
    out_ << "\x1b[J" << std::flush;
  }

 private:
  std::ostream& out_;
};

class TopCommand final : public Command {
 public:
  explicit TopCommand(CLI::App* app) : Command(app) {
    FlagGroup group(app, "What to show");
    group.Text({"--metrics", "HOST:PORT", "the server's --metrics-listen", metrics_}, &metrics_);
    group.Time({"--interval", "TIME", "between two readings", "2s"}, "",
               [this](absl::Duration time) { interval_ = time; });
    group.Switch({"--once", "", "print the first interval and end"}, [this] { once_ = true; });
    FlagGroup(app, "Output")
        .Switch({"--json", "", "print a JSON object for each interval"},
                [this] { json_ = JsonMode::kOne; });
    app->footer(kTopExamples);
  }

  ExitCode Run(const Console& console) override;

 private:
  absl::StatusOr<Scrape> Read(HttpClient* client) const;
  void Print(const Console& console, const ServerView& view) const;

  std::string metrics_ = "127.0.0.1:8002";
  absl::Duration interval_ = absl::Seconds(2);
  bool once_ = false;
  JsonMode json_ = JsonMode::kOff;
};

absl::StatusOr<Scrape> TopCommand::Read(HttpClient* client) const {
  auto text = client->Get("/metrics");
  if (!text.ok()) return text.status();
  const absl::Time at = absl::Now();
  auto samples = ParsePrometheusText(*text);
  if (!samples.ok()) return samples.status();
  return Scrape{at, *std::move(samples)};
}

void TopCommand::Print(const Console& console, const ServerView& view) const {
  if (json_ == JsonMode::kOff) {
    console.out << ViewText(view) << (once_ ? "" : "\n") << std::flush;
  } else {
    console.out << JsonLine(ViewJson(view)) << std::flush;
  }
}

ExitCode TopCommand::Run(const Console& console) {
  if (!absl::StrContains(metrics_, ':')) {
    const std::string message =
        absl::StrCat("--metrics: must be HOST:PORT, got \"", metrics_, "\"");
    return ReportError(absl::InvalidArgumentError(message), json_, console);
  }
  HttpClient client(metrics_);
  absl::Notification ended;
  const Interrupts::Scope scope(console.interrupts, [&] {
    ended.Notify();
    client.Stop();
  });
  absl::StatusOr<Scrape> before = Read(&client);
  std::optional<Screen> screen;
  if (before.ok() && json_ == JsonMode::kOff && !once_ && console.out_is_terminal &&
      console.err_is_terminal) {
    screen.emplace(&console.out).Draw(ViewText(ViewServer(nullptr, *before)));
  }
  while (!ended.HasBeenNotified()) {
    // Where nobody watches, a script is to know.
    if (!before.ok() && !screen) return ReportError(before.status(), json_, console);
    if (ended.WaitForNotificationWithTimeout(interval_)) break;
    absl::StatusOr<Scrape> now = Read(&client);
    if (ended.HasBeenNotified()) break;
    if (!now.ok()) {
      if (screen) screen->Draw(SafeForTerminal(absl::StrCat(now.status().message(), "\n")));
    } else {
      const ServerView view = ViewServer(before.ok() ? &*before : nullptr, *now);
      if (screen) {
        screen->Draw(ViewText(view));
      } else {
        Print(console, view);
      }
      if (once_) return ExitCode::kDone;
    }
    before = std::move(now);
  }
  return ExitCode::kDone;
}

}  // namespace

std::unique_ptr<Command> MakeTopCommand(CLI::App* root) {
  return std::make_unique<TopCommand>(
      root->add_subcommand("top", "Shows what the server is doing, again and again.")
          ->group("Commands"));
}

}  // namespace hanmo
