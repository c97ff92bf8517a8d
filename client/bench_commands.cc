// hanmo bench: how a server bears a load of texts or pictures.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "client/generation_stream.h"
#include "client/input_file.h"
#include "client/load/load_run.h"
#include "client/load/load_summary.h"
#include "client/load/poisson.h"
#include "client/picture_flags.h"
#include "client/terminal_text.h"
#include "client/text_flags.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;

constexpr char kBenchExamples[] =
    R"(Latencies count from the instant at which a request was to be sent, so that waiting for a slow
server shows in them. They are of answers with OK; the others are counted by their codes. Ctrl-C
cuts the requests under way and reports.

"hanmo bench text --help" and "hanmo bench image --help" tell the flags.)";
constexpr char kTextExamples[] = R"(Examples:
  hanmo bench text --prompt "明月" --max-tokens 64 --rate 10 --duration 60s --slo 1s
  hanmo bench text --prompts questions.txt --rate max --concurrency 32 --json)";
constexpr char kImageExamples[] = R"(Examples:
  hanmo bench image --prompt "两座青山" --steps 20 --rate 0.5 --duration 2m --warmup 10s
  hanmo bench image --prompts prompts.txt --rate 4 --slo 5s --json)";

constexpr size_t kMaxPromptsBytes = 256 << 20;
constexpr absl::Duration kRedraw = absl::Milliseconds(500);

struct LoadFlags {
  std::string prompts;
  std::string rate;
  uint64_t concurrency = 8;
  absl::Duration duration = absl::Seconds(30);
  absl::Duration warmup = absl::ZeroDuration();
  absl::Duration slo = absl::InfiniteDuration();
  absl::Duration drain = absl::Seconds(60);
  uint64_t arrival_seed = 1;
  uint32_t connections = 8;

  bool closed() const { return rate == "max"; }
};

void AddLoadFlags(CLI::App* app, LoadFlags* flags) {
  FlagGroup load(app, "Load");
  load.Text({"--rate", "R",
             "requests a second on average, sent when they are due whatever the server does; max "
             "keeps --concurrency of them under way instead"},
            &flags->rate)
      ->required();
  load.Count({"--concurrency", "N", "requests under way at a time, with --rate max", "8"}, 1, 65536,
             [flags](uint64_t count) { flags->concurrency = count; });
  load.Time({"--duration", "TIME", "how long requests are sent and measured", "30s"}, "",
            [flags](absl::Duration time) { flags->duration = time; });
  load.Time({"--warmup", "TIME", "requests before that, which count in no figure", "none"}, "none",
            [flags](absl::Duration time) { flags->warmup = time; });
  load.Time({"--drain", "TIME", "how long to wait for the last answers", "60s"}, "not at all",
            [flags](absl::Duration time) { flags->drain = time; });
  load.Time({"--slo", "TIME", "a good answer is whole after this long", "no figure of it"}, "",
            [flags](absl::Duration time) { flags->slo = time; });
  load.Seed({"--arrival-seed", "N", "the same seed sends at the same instants", "1"},
            [flags](uint64_t seed) { flags->arrival_seed = seed; });
  load.Count({"--connections", "N", "to the server, used in turns", "8"}, 1, 64,
             [flags](uint64_t count) { flags->connections = static_cast<uint32_t>(count); });
}

void AddPromptsFlag(CLI::App* app, const char* heading, LoadFlags* flags,
                    const std::vector<std::string>& instead_of) {
  CLI::Option* prompts =
      FlagGroup(app, heading)
          .Text({"--prompts", "FILE", "a prompt a line, used in turns"}, &flags->prompts);
  for (const std::string& name : instead_of) prompts->excludes(app->get_option(name));
}

absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& path) {
  const auto text = ReadFile(path, kMaxPromptsBytes);
  if (!text.ok()) return text.status();
  std::vector<std::string> prompts = absl::StrSplit(*text, '\n', absl::SkipWhitespace());
  if (prompts.empty()) return absl::InvalidArgumentError("--prompts: the file has no prompt");
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (IsUtf8(prompts[i]) && prompts[i].size() <= kMaxTextBytes) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--prompts: prompt ", i + 1, " is no UTF-8 or longer than ", kMaxTextBytes, " bytes"));
  }
  return prompts;
}

// The requests of a run, one after the other.
class Requests {
 public:
  Requests(GenerateRequest request, std::vector<std::string> prompts)
      : request_(std::move(request)), prompts_(std::move(prompts)) {}

  const GenerateRequest& Next() {
    if (!prompts_.empty()) request_.set_prompt(prompts_[sent_ % prompts_.size()]);
    // Not the same output again and again, unless asked for.
    if (sent_++ == 0) return request_;
    hanmo::v1::TextParameters* text = request_.has_text() ? request_.mutable_text() : nullptr;
    hanmo::v1::PictureParameters* picture =
        request_.has_picture() ? request_.mutable_picture() : nullptr;
    if (text != nullptr && text->has_seed()) text->set_seed(text->seed() + 1);
    if (picture != nullptr && picture->has_seed()) picture->set_seed(picture->seed() + 1);
    return request_;
  }

 private:
  GenerateRequest request_;
  const std::vector<std::string> prompts_;
  size_t sent_ = 0;
};

class BenchCommand : public Command {
 public:
  ExitCode Run(const Console& console) override;

 protected:
  BenchCommand(CLI::App* app, hanmo::v1::Task task, const char* examples)
      : Command(app), task_(task) {
    app->footer(examples);
  }

  void AddCommonFlags() {
    AddLoadFlags(app(), &load_);
    AddOutputFlags(app(), false, &output_flags_);
    AddConnectionFlags(app(), "none", &connection_);
  }

  // The request as flags tell it; without its prompt where there are --prompts.
  virtual absl::StatusOr<GenerateRequest> Request(const Console& console) = 0;

  LoadFlags load_;

 private:
  absl::Status CheckRate();
  void Measure(const Console& console, Requests* requests, LoadRun* run,
               std::optional<LoadSummary>* summary);
  ExitCode Report(const Console& console, const LoadSummary& summary, const std::string& model);

  const hanmo::v1::Task task_;
  double rate_ = 0;
  OutputFlags output_flags_;
  ConnectionFlags connection_;
};

absl::Status BenchCommand::CheckRate() {
  if (load_.closed()) return absl::OkStatus();
  constexpr NumberRange kRates = {0, 100000, true};
  if (absl::SimpleAtod(load_.rate, &rate_) && kRates.Contains(rate_)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--rate: must be a number, ", kRates.ToString(),
                                                 ", or max, got \"", load_.rate, "\""));
}

ExitCode BenchCommand::Run(const Console& console) {
  const JsonMode json = output_flags_.json;
  if (auto status = CheckRate(); !status.ok()) return ReportError(status, json, console);
  std::vector<std::string> prompts;
  if (!load_.prompts.empty()) {
    auto read = ReadPrompts(load_.prompts);
    if (!read.ok()) return ReportError(read.status(), json, console);
    prompts = *std::move(read);
  }
  auto request = Request(console);
  if (!request.ok()) return ReportError(request.status(), json, console);
  const auto channels = OpenChannels(connection_, load_.connections);
  if (!channels.ok()) return ReportError(channels.status(), json, console);
  if (auto status = ChooseModel(channels->front(), console, task_, request->mutable_model());
      !status.ok()) {
    return ReportError(status, json, console);
  }
  LoadRun run({.concurrency = load_.closed() ? load_.concurrency : 0, .drain = load_.drain});
  if (auto status = run.Connect(*channels, *channels); !status.ok()) {
    return ReportError(grpc::Status(grpc::StatusCode::UNAVAILABLE, std::string(status.message())),
                       json, console);
  }
  const std::string model = request->model();
  Requests requests(*std::move(request), std::move(prompts));
  std::optional<LoadSummary> summary;
  Measure(console, &requests, &run, &summary);
  return Report(console, *summary, model);
}

void BenchCommand::Measure(const Console& console, Requests* requests, LoadRun* run,
                           std::optional<LoadSummary>* summary) {
  // `done` runs on other threads, but after the first call was sent, before which all is set.
  const absl::Duration length = load_.warmup + load_.duration;
  PoissonProcess arrivals(load_.closed() ? 1 : rate_, load_.arrival_seed);
  const absl::Time begin = absl::Now();
  summary->emplace(LoadSummaryOptions{.from = begin + load_.warmup, .slo = load_.slo});
  const auto next = [&]() -> std::optional<Arrival> {
    const absl::Duration at = load_.closed() ? absl::Now() - begin : arrivals.Next();
    if (at >= length) return std::nullopt;
    Arrival arrival = {.at = at, .request = requests->Next()};
    if (connection_.timeout.value_or(absl::ZeroDuration()) > absl::ZeroDuration()) {
      arrival.deadline = *connection_.timeout;
    }
    return arrival;
  };
  absl::Time drawn = begin;
  const auto done = [&](const Outcome& outcome) {
    (*summary)->Add(outcome);
    const absl::Time now = absl::Now();
    if (!console.err_is_terminal || now - drawn < kRedraw) return;
    drawn = now;
    console.err << absl::StrFormat("\r%.0f of %.0f s: %d ended, %d ok\x1b[K",
                                   absl::ToDoubleSeconds(now - begin),
                                   absl::ToDoubleSeconds(length), (*summary)->sent(),
                                   (*summary)->ok())
                << std::flush;
  };
  const Interrupts::Scope scope(console.interrupts, [run] { run->Stop(); });
  run->Play(next, done);
  if (drawn != begin) console.err << "\r\x1b[K" << std::flush;
}

ExitCode BenchCommand::Report(const Console& console, const LoadSummary& summary,
                              const std::string& model) {
  if (output_flags_.json == JsonMode::kOff) {
    console.out << SafeForTerminal(model) << ": " << summary.Text() << std::flush;
  } else {
    nlohmann::ordered_json json = {{"model", model}};
    if (load_.closed()) {
      json["concurrency"] = load_.concurrency;
    } else {
      json["rate"] = rate_;
    }
    json.update(summary.Json());
    console.out << JsonLine(json) << std::flush;
  }
  if (console.interrupts->received()) return ExitCode::kInterrupted;
  if (summary.first_failure().ok()) return ExitCode::kDone;
  // The table has the codes; what the first one says tells why.
  const ExitCode code = ReportError(summary.first_failure(), JsonMode::kOff, console);
  return summary.ok() == 0 ? code : ExitCode::kDone;
}

class BenchTextCommand final : public BenchCommand {
 public:
  explicit BenchTextCommand(CLI::App* app)
      : BenchCommand(app, hanmo::v1::TASK_TEXT_TO_TEXT, kTextExamples) {
    AddTextRequestFlags(app, &flags_);
    AddPromptsFlag(app, "Load", &load_,
                   {"--prompt", "--token-ids", "--messages", "--system", "--user"});
    AddCommonFlags();
  }

 private:
  absl::StatusOr<GenerateRequest> Request(const Console& console) override {
    const absl::Status status = load_.prompts.empty() ? CompleteTextRequest(console, &flags_)
                                                      : CompleteTextParameters(&flags_);
    if (!status.ok()) return status;
    flags_.request.mutable_text();
    return flags_.request;
  }

  TextFlags flags_;
};

class BenchImageCommand final : public BenchCommand {
 public:
  explicit BenchImageCommand(CLI::App* app)
      : BenchCommand(app, hanmo::v1::TASK_TEXT_TO_PICTURE, kImageExamples) {
    AddPictureRequestFlags(app, &flags_);
    AddPromptsFlag(app, "Load", &load_, {"--prompt"});
    AddCommonFlags();
  }

 private:
  absl::StatusOr<GenerateRequest> Request(const Console& console) override {
    flags_.request.mutable_picture();
    if (!load_.prompts.empty()) return flags_.request;
    if (flags_.prompt.empty()) {
      return absl::InvalidArgumentError("--prompt: must not be empty, unless --prompts is given");
    }
    absl::StatusOr<std::string> prompt = ReadText(flags_.prompt, "--prompt", console.in);
    if (!prompt.ok()) return prompt.status();
    flags_.request.set_prompt(*std::move(prompt));
    return flags_.request;
  }

  PictureFlags flags_;
};

}  // namespace

std::vector<std::unique_ptr<Command>> MakeBenchCommands(CLI::App* root) {
  CLI::App* bench = root->add_subcommand("bench", "Puts load on the server and measures it.");
  bench->group("Commands")->require_subcommand(1)->footer(kBenchExamples);
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(std::make_unique<BenchTextCommand>(
      bench->add_subcommand("text", "Asks for texts.")->group("Commands")));
  commands.push_back(std::make_unique<BenchImageCommand>(
      bench->add_subcommand("image", "Asks for pictures.")->group("Commands")));
  return commands;
}

}  // namespace hanmo
