// hanmo text and hanmo caption: a prompt, a conversation or a picture becomes texts on stdout, as
// they are written.
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/agreement.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/generation_json.h"
#include "client/generation_stream.h"
#include "client/progress.h"
#include "client/terminal_text.h"
#include "client/text_flags.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateStreamResponse;

constexpr char kTextExamples[] = R"(Examples:
  hanmo text --user "写一首关于秋山的五言绝句"
  hanmo text --prompt "春眠不觉晓，" --echo --temperature 0.8 --top-p 0.9 --seed 7
  hanmo text --prompt "明月" --temperature 0 --max-tokens 64 --json | jq -r .text
  cat question.txt | hanmo text --system "你是诗人" --user - -n 3)";

constexpr char kCaptionExamples[] = R"(Examples:
  hanmo caption --image boat.png
  hanmo caption boat.jpg -n 4 --temperature 0.8 --begin "一叶"
  hanmo image "两座青山，一叶扁舟" -o boat.png && hanmo caption boat.png --expect "两座青山，一叶扁舟")";

class TextCommand final : public Command {
 public:
  TextCommand(CLI::App* app, hanmo::v1::Task task) : Command(app), task_(task) {
    if (captions()) {
      AddCaptionFlags(app, &flags_);
    } else {
      AddTextFlags(app, &flags_);
    }
    AddOutputFlags(app, true, &output_flags_);
    AddConnectionFlags(app, "none", &connection_);
    app->footer(captions() ? kCaptionExamples : kTextExamples);
  }

  ExitCode Run(const Console& console) override;

 private:
  bool captions() const { return task_ == hanmo::v1::TASK_PICTURE_TO_TEXT; }
  void OnEvent(const Console& console, GenerateStreamResponse* event);
  // Texts of one sample go out as they come; several would mix, and wait for the end.
  bool streams() const { return output_flags_.json == JsonMode::kOff && flags_.count() == 1; }
  void Write(const Console& console, const std::string& text);
  void Print(const Console& console);
  std::string Summary(const hanmo::v1::Text& text) const;
  double AgreementOf(const hanmo::v1::Text& text) const {
    return Agreement(flags_.begin + text.text(), flags_.expect);
  }

  const hanmo::v1::Task task_;
  TextFlags flags_;
  OutputFlags output_flags_;
  ConnectionFlags connection_;

  Progress* progress_ = nullptr;  // while Run streams
  hanmo::v1::GenerateResponse final_;
  bool line_open_ = false;  // the last character written was no line feed
};

ExitCode TextCommand::Run(const Console& console) {
  const JsonMode json = output_flags_.json;
  const auto complete = captions() ? CompleteCaptionRequest : CompleteTextRequest;
  if (auto status = complete(console, &flags_); !status.ok()) {
    return ReportError(status, json, console);
  }
  const auto channel = OpenChannel(connection_);
  if (!channel.ok()) return ReportError(channel.status(), json, console);
  if (auto status = ChooseModel(*channel, console, task_, flags_.request.mutable_model());
      !status.ok()) {
    return ReportError(status, json, console);
  }

  Call call(console, connection_.timeout.value_or(absl::ZeroDuration()));
  Progress progress(&console.err, {.quiet = output_flags_.quiet,
                                   .terminal = console.err_is_terminal,
                                   .columns = console.columns});
  progress_ = &progress;
  if (flags_.echo && streams()) Write(console, flags_.begun());
  const grpc::Status status =
      StreamGeneration(*channel, &call, flags_.request, [&](GenerateStreamResponse* event) {
        OnEvent(console, event);
        return absl::OkStatus();
      });
  progress.Clear();
  if (!status.ok()) {
    if (line_open_) console.out << "\n" << std::flush;
    return ReportError(status, json, console);
  }
  Print(console);
  return ExitCode::kDone;
}

void TextCommand::OnEvent(const Console& console, GenerateStreamResponse* event) {
  if (output_flags_.json == JsonMode::kLines && !event->has_final()) {
    console.out << JsonLine(EventJson(*event)) << std::flush;
  }
  if (event->has_queued()) {
    progress_->Queued(event->queued().position(),
                      absl::Seconds(Seconds(event->queued().expected_wait())));
  } else if (event->has_text() && streams()) {
    progress_->Clear();
    Write(console, event->text().text());
  } else if (event->has_final()) {
    final_ = std::move(*event->mutable_final());
  }
}

void TextCommand::Write(const Console& console, const std::string& text) {
  if (text.empty()) return;
  console.out << (console.out_is_terminal ? SafeForTerminal(text) : text) << std::flush;
  line_open_ = !absl::EndsWith(text, "\n");
}

void TextCommand::Print(const Console& console) {
  if (output_flags_.json != JsonMode::kOff) {
    nlohmann::ordered_json json;
    if (output_flags_.json == JsonMode::kLines) json["event"] = "final";
    json.update(ResponseJson(final_, {}));
    if (!flags_.expect.empty()) {
      for (const hanmo::v1::Output& output : final_.outputs()) {
        json["agreement"].push_back(AgreementOf(output.text()));
      }
    }
    console.out << JsonLine(json) << std::flush;
    return;
  }
  for (const hanmo::v1::Output& output : final_.outputs()) {
    if (!streams()) {
      console.out << (output.index() == 0 ? "" : "\n") << "[" << Summary(output.text()) << "]\n";
      if (flags_.echo) Write(console, flags_.begun());
      Write(console, output.text().text());
    }
    if (line_open_) console.out << "\n";
    line_open_ = false;
  }
  console.out << std::flush;
  if (output_flags_.quiet) return;
  const double seconds = Seconds(final_.timings().total());
  std::string summary = SafeForTerminal(final_.model());
  if (streams() && final_.outputs_size() == 1) {
    absl::StrAppend(&summary, ", ", Summary(final_.outputs(0).text()));
  }
  console.err << absl::StrFormat("%s, %.2f s\n", summary, seconds) << std::flush;
}

std::string TextCommand::Summary(const hanmo::v1::Text& text) const {
  return absl::StrCat(
      "seed ", text.seed(), ", ", text.token_ids_size(), " tokens, ended by ",
      FinishReasonName(text.finish_reason()),
      flags_.expect.empty() ? "" : absl::StrFormat(", agreement %.3f", AgreementOf(text)));
}

}  // namespace

std::unique_ptr<Command> MakeTextCommand(CLI::App* root) {
  return std::make_unique<TextCommand>(
      root->add_subcommand("text", "Writes texts from a prompt or a conversation.")
          ->group("Commands"),
      hanmo::v1::TASK_TEXT_TO_TEXT);
}

std::unique_ptr<Command> MakeCaptionCommand(CLI::App* root) {
  return std::make_unique<TextCommand>(
      root->add_subcommand("caption", "Writes what a picture shows.")->group("Commands"),
      hanmo::v1::TASK_PICTURE_TO_TEXT);
}

}  // namespace hanmo
