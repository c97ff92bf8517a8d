#include "client/picture_flags.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/flag_group.h"
#include "client/input_file.h"
#include "client/output_file.h"

namespace hanmo {
namespace {

constexpr uint32_t kDefaultPreviewSteps = 5;

void AddInput(CLI::App* app, PictureFlags* flags) {
  FlagGroup input(app, "Input");
  input.Text({"--model", "NAME", "which model paints", "the server's only one that does"},
             flags->request.mutable_model());
  input.Text({"--model-version", "VERSION", "which of its versions, a number or a label", "stable"},
             flags->request.mutable_version());
  input.Text({"-p,--prompt,PROMPT", "TEXT", "what to paint; - reads stdin"}, &flags->prompt);
  input.Text({"--negative-prompt", "TEXT", "what the picture should not show"},
             flags->request.mutable_picture()->mutable_negative_prompt());
}

void AddPicture(CLI::App* app, hanmo::v1::PictureParameters* picture) {
  FlagGroup group(app, "Picture");
  group.Count({"--width", "PIXELS", "width of the picture; the model says of what it is a multiple",
               "the model's"},
              1, 65536, [picture](uint64_t width) { picture->set_width(width); });
  group.Count({"--height", "PIXELS", "height of the picture", "the model's"}, 1, 65536,
              [picture](uint64_t height) { picture->set_height(height); });
  group.Count({"--steps", "N", "denoising steps", "the model's"}, 1, 1000,
              [picture](uint64_t steps) { picture->set_steps(steps); });
  group.Count({"--min-steps", "N",
               "paint with as few steps as this rather than miss the deadline of --timeout",
               "never fewer than --steps"},
              1, 1000, [picture](uint64_t steps) { picture->set_min_steps(steps); });
  group.Choice({"--sampler", "NAME", "how noise becomes a picture", "the checkpoint's"},
               {"ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc"},
               [picture](const std::string& sampler) { picture->set_sampler(sampler); });
  group.Number({"--temperature", "X",
                "how freely to choose tokens, of a model that paints by them; 0 is the likeliest",
                "the checkpoint's"},
               {0, 100}, [picture](float value) { picture->set_temperature(value); });
  group.Count({"--top-k", "N", "choose among the N likeliest tokens; 0 is all", "the checkpoint's"},
              0, UINT32_MAX, [picture](uint64_t value) { picture->set_top_k(value); });
  group.Number({"--top-p", "X", "choose among the likeliest tokens whose probabilities sum to X",
                "the checkpoint's"},
               {0, 1, true}, [picture](float value) { picture->set_top_p(value); });
  group.Number({"--guidance", "X",
                "how closely to follow the prompt; 1 and below take half the time", "the model's"},
               {0, 100}, [picture](float guidance) { picture->set_guidance(guidance); });
  group.Seed({"--seed", "N", "the same seed paints the same picture; picture i takes N + i",
              "drawn, and told"},
             [picture](uint64_t seed) { picture->set_seed(seed); });
  group.Count({"-n,--count", "N", "pictures to paint", "1"}, 1, 16,
              [picture](uint64_t count) { picture->set_count(count); });
  group.Count({"--best-of", "N",
               "paint so many candidates and keep the --count that fit the prompt best, by the "
               "model's reranker",
               "nothing is scored"},
              1, 64, [picture](uint64_t best_of) { picture->set_best_of(best_of); });
}

void AddFiles(CLI::App* app, PictureFlags* flags) {
  hanmo::v1::PictureParameters* picture = flags->request.mutable_picture();
  FlagGroup group(app, "Files");
  group
      .Text({"-o,--output", "FILE",
             "where the picture goes; {index} and {seed} are filled in, several pictures without "
             "either get -0, -1 ... before the extension, from the best on where they are scored; "
             "- is stdout"},
            &flags->output)
      ->required();
  group.Choice({"--format", "NAME", "what the file is", "as its name ends"},
               {"png", "jpeg", "webp"},
               [flags](const std::string& format) { flags->format = format; });
  group.Count({"--quality", "N", "of a JPEG or WebP file", "90"}, 1, 100,
              [picture](uint64_t quality) { picture->set_quality(quality); });
  CLI::Option* preview = group.Text(
      {"--preview", "FILE.jpg", "keep the newest preview here while painting"}, &flags->preview);
  group
      .Count({"--preview-every", "STEPS", "denoising steps between two previews",
              absl::StrCat(kDefaultPreviewSteps)},
             1, 1000, [picture](uint64_t steps) { picture->set_preview_every_steps(steps); })
      ->needs(preview);
}

// --format, else what the name says; both must agree where both do.
absl::Status SettleFormat(PictureFlags* flags) {
  hanmo::v1::PictureParameters* picture = flags->request.mutable_picture();
  const absl::StatusOr<hanmo::v1::PictureFormat> by_name = FormatOf(flags->output);
  if (!flags->format.empty()) {
    picture->set_format(FormatNamed(flags->format));
    if (by_name.ok() && *by_name != picture->format()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--format: ", flags->format, " contradicts the name ", flags->output));
    }
  } else if (flags->output == "-") {
    picture->set_format(hanmo::v1::PICTURE_FORMAT_PNG);
  } else if (by_name.ok()) {
    picture->set_format(*by_name);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--output: ", by_name.status().message(), "; or say --format"));
  }
  if (picture->has_quality() && picture->format() == hanmo::v1::PICTURE_FORMAT_PNG) {
    return absl::InvalidArgumentError("--quality: is for JPEG and WebP, PNG has none");
  }
  return absl::OkStatus();
}

absl::Status CheckFiles(const Console& console, const PictureFlags& flags) {
  if (flags.candidates() < flags.count()) {
    return absl::InvalidArgumentError("--best-of: must be at least --count");
  }
  if (flags.output == "-") {
    if (flags.count() > 1) {
      return absl::InvalidArgumentError("--output: - takes one picture, --count asks for more");
    }
    if (console.out_is_terminal) {
      return absl::InvalidArgumentError("--output: - would put a picture's bytes on the terminal");
    }
    return absl::OkStatus();
  }
  for (uint32_t i = 0; i < flags.count(); ++i) {
    const OutputPlace place = {i, flags.request.picture().seed() + i};
    if (auto status = CheckWritable(OutputName(flags.output, flags.count(), place)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPreview(PictureFlags* flags) {
  if (flags->preview.empty()) return absl::OkStatus();
  const auto format = FormatOf(flags->preview);
  if (!format.ok() || *format != hanmo::v1::PICTURE_FORMAT_JPEG) {
    return absl::InvalidArgumentError("--preview: must end in .jpg or .jpeg");
  }
  hanmo::v1::PictureParameters* picture = flags->request.mutable_picture();
  if (!picture->has_seed() && absl::StrContains(flags->preview, "{seed}")) {
    return absl::InvalidArgumentError("--preview: {seed} needs --seed, a drawn one is told later");
  }
  if (picture->preview_every_steps() == 0) picture->set_preview_every_steps(kDefaultPreviewSteps);
  return CheckWritable(OutputName(flags->preview, flags->candidates(), {0, picture->seed()}));
}

}  // namespace

void AddPictureRequestFlags(CLI::App* app, PictureFlags* flags) {
  AddInput(app, flags);
  AddPicture(app, flags->request.mutable_picture());
}

void AddPictureFlags(CLI::App* app, PictureFlags* flags) {
  AddPictureRequestFlags(app, flags);
  app->get_option("--prompt")->required();
  FlagGroup(app, "Input")
      .Text({"--request-id", "ID", "name of this request in the server's logs", "drawn"},
            flags->request.mutable_request_id());
  AddFiles(app, flags);
}

absl::Status CompletePictureRequest(const Console& console, PictureFlags* flags) {
  if (auto status = SettleFormat(flags); !status.ok()) return status;
  if (auto status = CheckFiles(console, *flags); !status.ok()) return status;
  if (auto status = CheckPreview(flags); !status.ok()) return status;
  absl::StatusOr<std::string> prompt = ReadText(flags->prompt, "--prompt", console.in);
  if (!prompt.ok()) return prompt.status();
  flags->request.set_prompt(*std::move(prompt));
  return absl::OkStatus();
}

}  // namespace hanmo
