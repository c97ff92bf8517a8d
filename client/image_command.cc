// hanmo image: a prompt becomes pictures in files.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/generation_json.h"
#include "client/generation_stream.h"
#include "client/output_file.h"
#include "client/picture_assembler.h"
#include "client/picture_flags.h"
#include "client/progress.h"
#include "client/terminal_text.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateStreamResponse;

constexpr char kImageExamples[] = R"(Examples:
  hanmo image --prompt "水墨山水，两座青山，一叶扁舟" --output boat.png
  hanmo image --prompt "寒冬，一座金山，岸边梅树" --steps 30 --sampler dpmpp_2m --seed 7 -n 4 -o "plum-{seed}.webp"
  hanmo image --prompt "一座青山，古松" --best-of 8 --output best.png
  echo "黄昏，两座墨峰，天上飞鸟" | hanmo image --prompt - --output - --format jpeg > birds.jpg
  hanmo image --prompt "一座青山，古松" --output pine.png --json | jq .seed)";

std::string ScoreText(const hanmo::v1::Picture& picture) {
  return picture.has_score() ? absl::StrFormat(", score %.4f", picture.score()) : "";
}

class ImageCommand final : public Command {
 public:
  explicit ImageCommand(CLI::App* app) : Command(app) {
    AddPictureFlags(app, &flags_);
    AddOutputFlags(app, true, &output_flags_);
    AddConnectionFlags(app, "none", &connection_);
    app->footer(kImageExamples);
  }

  ExitCode Run(const Console& console) override;

 private:
  absl::Status OnEvent(const Console& console, GenerateStreamResponse* event);
  void SavePreview(const Console& console, const hanmo::v1::Preview& preview);
  // Puts the pictures of final_ into their files, in order.
  absl::Status Save(const Console& console);
  void Print(const Console& console);

  // Of output `place` of the answer.
  std::string FileOf(uint32_t place, uint64_t seed) const {
    return OutputName(flags_.output, flags_.count(), {place, seed});
  }

  PictureFlags flags_;
  OutputFlags output_flags_;
  ConnectionFlags connection_;

  Progress* progress_ = nullptr;  // while Run streams
  PictureAssembler pictures_{0};
  hanmo::v1::GenerateResponse final_;
  std::vector<std::string> files_;  // of the outputs of final_
  bool preview_failed_ = false;
};

ExitCode ImageCommand::Run(const Console& console) {
  const JsonMode json = output_flags_.json;
  if (auto status = CompletePictureRequest(console, &flags_); !status.ok()) {
    return ReportError(status, json, console);
  }
  if (json != JsonMode::kOff && flags_.output == "-") {
    return ReportError(absl::InvalidArgumentError("--json: stdout cannot have the picture too"),
                       json, console);
  }
  const auto channel = OpenChannel(connection_);
  if (!channel.ok()) return ReportError(channel.status(), json, console);
  if (auto status = ChooseModel(*channel, console, hanmo::v1::TASK_TEXT_TO_PICTURE,
                                flags_.request.mutable_model());
      !status.ok()) {
    return ReportError(status, json, console);
  }

  // Lives until the files are written: Ctrl-C cannot end the program between two of them.
  Call call(console, connection_.timeout.value_or(absl::ZeroDuration()));
  Progress progress(&console.err, {.quiet = output_flags_.quiet,
                                   .terminal = console.err_is_terminal,
                                   .columns = console.columns,
                                   .samples = flags_.candidates()});
  progress_ = &progress;
  pictures_ = PictureAssembler(flags_.candidates());
  const grpc::Status status =
      StreamGeneration(*channel, &call, flags_.request,
                       [&](GenerateStreamResponse* event) { return OnEvent(console, event); });
  progress.Clear();
  if (!status.ok()) return ReportError(status, json, console);
  if (auto saved = Save(console); !saved.ok()) return ReportError(saved, json, console);
  Print(console);
  return ExitCode::kDone;
}

absl::Status ImageCommand::OnEvent(const Console& console, GenerateStreamResponse* event) {
  if (output_flags_.json == JsonMode::kLines && !event->has_final()) {
    console.out << JsonLine(EventJson(*event)) << std::flush;
  }
  switch (event->event_case()) {
    case GenerateStreamResponse::kQueued:
      progress_->Queued(event->queued().position(),
                        absl::Seconds(Seconds(event->queued().expected_wait())));
      break;
    case GenerateStreamResponse::kStep:
      progress_->Step(event->step().index(), event->step().step(), event->step().steps());
      break;
    case GenerateStreamResponse::kPreview:
      SavePreview(console, event->preview());
      break;
    case GenerateStreamResponse::kPicture:
      return pictures_.Add(std::move(*event->mutable_picture()));
    case GenerateStreamResponse::kFinal:
      final_ = std::move(*event->mutable_final());
      break;
    default:  // of a newer server
      break;
  }
  return absl::OkStatus();
}

void ImageCommand::SavePreview(const Console& console, const hanmo::v1::Preview& preview) {
  if (flags_.preview.empty() || preview_failed_ || preview.index() >= flags_.candidates()) {
    return;
  }
  const std::string file =
      OutputName(flags_.preview, flags_.candidates(),
                 {preview.index(), flags_.request.picture().seed() + preview.index()});
  if (auto status = WriteFile(file, preview.data()); !status.ok()) {
    // Not worth ending the painting for.
    preview_failed_ = true;
    progress_->Clear();
    console.err << SafeForTerminal(absl::StrCat("hanmo: ", status.message())) << "\n";
  }
}

absl::Status ImageCommand::Save(const Console& console) {
  if (final_.outputs_size() != static_cast<int>(flags_.count())) {
    return absl::DataLossError(
        absl::StrCat("the server sent ", final_.outputs_size(), " pictures, not ", flags_.count()));
  }
  for (int i = 0; i < final_.outputs_size(); ++i) {
    const hanmo::v1::Output& output = final_.outputs(i);
    const absl::StatusOr<std::string> bytes = pictures_.Take(output.index());
    if (!bytes.ok()) return bytes.status();
    if (flags_.output == "-") {
      console.out << *bytes << std::flush;
      if (!console.out) return absl::UnavailableError("stdout could not be written");
      files_.push_back("-");
      continue;
    }
    files_.push_back(FileOf(static_cast<uint32_t>(i), output.picture().seed()));
    if (auto status = WriteFile(files_.back(), *bytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ImageCommand::Print(const Console& console) {
  if (output_flags_.json != JsonMode::kOff) {
    nlohmann::ordered_json json;
    if (output_flags_.json == JsonMode::kLines) json["event"] = "final";
    json.update(ResponseJson(final_, files_));
    console.out << JsonLine(json);
    return;
  }
  std::ostream& out = flags_.output == "-" ? console.err : console.out;
  for (int i = 0; i < final_.outputs_size(); ++i) {
    const hanmo::v1::Picture& picture = final_.outputs(i).picture();
    out << SafeForTerminal(absl::StrCat(files_[i], ": ", picture.width(), " x ", picture.height(),
                                        ", seed ", picture.seed(), ", ", picture.steps(),
                                        picture.sampler().empty() ? " tokens" : " steps of ",
                                        picture.sampler(), ScoreText(picture)))
        << "\n";
  }
  out << std::flush;
  if (output_flags_.quiet) return;
  console.err << absl::StrFormat("%s, %.2f s, of which %.2f s in the queue\n",
                                 SafeForTerminal(final_.model()), Seconds(final_.timings().total()),
                                 Seconds(final_.timings().queue()));
}

}  // namespace

std::unique_ptr<Command> MakeImageCommand(CLI::App* root) {
  return std::make_unique<ImageCommand>(
      root->add_subcommand("image", "Paints pictures from a prompt.")->group("Commands"));
}

}  // namespace hanmo
