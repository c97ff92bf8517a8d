#include "client/text_flags.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/flag_group.h"
#include "client/input_file.h"

namespace hanmo {
namespace {

using hanmo::v1::TextParameters;

constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxGuideBytes = 64 << 10;
constexpr char kInput[] = "Input (one of --prompt, --token-ids, a conversation)";
constexpr char kPictureInput[] = "Input";

void AddModel(FlagGroup& input, TextFlags* flags) {
  input.Text({"--model", "NAME", "which model writes", "the server's only one that does"},
             flags->request.mutable_model());
  input.Text({"--model-version", "VERSION", "which of its versions, a number or a label", "stable"},
             flags->request.mutable_version());
}

void AddInput(CLI::App* app, TextFlags* flags) {
  FlagGroup input(app, kInput);
  AddModel(input, flags);
  CLI::Option* prompt = input.Text(
      {"-p,--prompt,PROMPT", "TEXT", "text to go on from; - reads stdin"}, &flags->prompt);
  input.Texts({"--token-ids", "IDS", "a prompt as token ids, as in 5,17,9"}, 1, &flags->token_ids)
      ->excludes(prompt);
  input
      .Text({"--messages", "FILE",
             "a conversation, [{\"role\": ..., \"content\": ...}, ...]; - "
             "reads stdin"},
            &flags->messages)
      ->excludes(prompt);
  input
      .Text({"--system", "TEXT", "first message of a conversation: how to answer"}, &flags->system)
      ->excludes(prompt);
  input.Text({"--user", "TEXT", "last message of a conversation; - reads stdin"}, &flags->user)
      ->excludes(prompt);
  CLI::Option* thinking =
      input.Switch({"--thinking", "", "let the model think before it answers a conversation",
                    "the chat template's"},
                   [flags] { flags->thinking = true; });
  input
      .Switch({"--no-thinking", "", "have it answer at once"}, [flags] { flags->thinking = false; })
      ->excludes(thinking);
}

void AddPictureInput(CLI::App* app, TextFlags* flags) {
  FlagGroup input(app, kPictureInput);
  AddModel(input, flags);
  input
      .Text({"-i,--image,IMAGE", "FILE",
             "a PNG, JPEG or WebP file, at most 16 MiB and 4096 x 4096 pixels; - reads stdin"},
            &flags->image)
      ->required();
  input.Text({"--begin", "TEXT", "how the text begins; what follows is written"}, &flags->begin);
  input.Text({"--expect", "TEXT",
              "tell how far each text agrees with this one, 0 to 1 (ROUGE-L of characters)"},
             &flags->expect);
}

void AddLength(CLI::App* app, TextFlags* flags) {
  TextParameters* text = flags->request.mutable_text();
  FlagGroup group(app, "Length");
  group.Count({"--max-tokens", "N", "new tokens at most", "what fits, at most 256"}, 1, UINT32_MAX,
              [text](uint64_t tokens) { text->set_max_tokens(tokens); });
  group.Count({"--min-tokens", "N", "no end before this many", "0"}, 0, UINT32_MAX,
              [text](uint64_t tokens) { text->set_min_tokens(tokens); });
  group.Texts({"--stop", "TEXT", "end before this text of 1 to 256 bytes; may be repeated"}, 16,
              &flags->stop);
  group.Texts({"--stop-token-id", "IDS", "end at these token ids, as in 5,17; may be repeated"}, 64,
              &flags->stop_token_ids);
  group.Switch({"--include-stop", "", "keep the stop text"},
               [text] { text->set_include_stop(true); });
  group.Switch({"--ignore-eos", "", "go on after the end-of-text token, to --max-tokens"},
               [text] { text->set_ignore_eos(true); });
}

void AddSampling(CLI::App* app, TextFlags* flags) {
  TextParameters* text = flags->request.mutable_text();
  FlagGroup group(app, "Sampling");
  group.Number({"--temperature", "X", "how freely to choose; 0 always takes the likeliest token",
                "the checkpoint's"},
               {0, 100}, [text](float value) { text->set_temperature(value); });
  group.Count({"--top-k", "N", "choose among the N likeliest tokens; 0 is all", "the checkpoint's"},
              0, UINT32_MAX, [text](uint64_t value) { text->set_top_k(value); });
  group.Number({"--top-p", "X", "choose among the likeliest tokens whose probabilities sum to X",
                "the checkpoint's"},
               {0, 1, true}, [text](float value) { text->set_top_p(value); });
  group.Number({"--min-p", "X", "drop tokens less likely than X times the likeliest", "0"}, {0, 1},
               [text](float value) { text->set_min_p(value); });
  group.Seed(
      {"--seed", "N", "the same seed writes the same text; text i takes N + i", "drawn, and told"},
      [text](uint64_t seed) { text->set_seed(seed); });
  group.Count({"-n,--count", "N", "texts to write", "1"}, 1, 16,
              [text](uint64_t count) { text->set_n(count); });
}

void AddPenalties(CLI::App* app, TextFlags* flags) {
  TextParameters* text = flags->request.mutable_text();
  FlagGroup group(app, "Penalties");
  group.Number({"--repetition-penalty", "X",
                "divides or multiplies logits of tokens in prompt and output; 1 is none",
                "the checkpoint's"},
               {0, 10, true}, [text](float value) { text->set_repetition_penalty(value); });
  group.Number({"--presence-penalty", "X", "take X off the logits of tokens in the output", "0"},
               {-2, 2}, [text](float value) { text->set_presence_penalty(value); });
  group.Number(
      {"--frequency-penalty", "X", "take X off for each time a token is in the output", "0"},
      {-2, 2}, [text](float value) { text->set_frequency_penalty(value); });
  group.Texts(
      {"--logit-bias", "ID=X", "add X, -100 to 100, to the logit of a token id; may be repeated"},
      1024, &flags->logit_bias);
}

void AddGuide(CLI::App* app, TextFlags* flags) {
  FlagGroup group(app, "Form (one of these)");
  group.Text({"--json-schema", "FILE", "the text is a JSON document that is valid by this schema"},
             &flags->json_schema);
  group.Text({"--regex", "REGEX", "the whole text matches this regular expression"}, &flags->regex);
  group.Text({"--grammar", "FILE", "the text follows this grammar, in Lark's notation"},
             &flags->grammar);
  group.Texts({"--choice", "TEXT", "the text is one of these; may be repeated"}, 1024,
              &flags->choices);
}

absl::Status ReadInput(const Console& console, TextFlags* flags) {
  hanmo::v1::GenerateRequest& request = flags->request;
  const bool chat = !flags->messages.empty() || !flags->system.empty() || !flags->user.empty();
  if (flags->thinking && !chat) {
    return absl::InvalidArgumentError(
        absl::StrCat(*flags->thinking ? "--thinking" : "--no-thinking", ": needs a conversation"));
  }
  if (!flags->token_ids.empty()) {
    if (chat) return absl::InvalidArgumentError("--token-ids: cannot go with a conversation");
    std::vector<uint32_t> ids;
    if (auto status = ParseTokenIds(flags->token_ids, "--token-ids", &ids); !status.ok()) {
      return status;
    }
    request.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
    return absl::OkStatus();
  }
  if (!chat) {
    if (flags->prompt.empty()) {
      return absl::InvalidArgumentError(
          "--prompt: must not be empty, unless --token-ids or a conversation is given");
    }
    absl::StatusOr<std::string> prompt = ReadText(flags->prompt, "--prompt", console.in);
    if (!prompt.ok()) return prompt.status();
    request.set_prompt(*std::move(prompt));
    return absl::OkStatus();
  }
  const auto add = [&request](const char* role, std::string content) {
    hanmo::v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(std::move(content));
  };
  if (flags->messages == "-" && flags->user == "-") {
    return absl::InvalidArgumentError("--user: stdin is taken by --messages");
  }
  if (flags->thinking) request.mutable_chat()->set_thinking(*flags->thinking);
  if (!flags->system.empty()) add("system", flags->system);
  if (!flags->messages.empty()) {
    if (auto status = ReadMessages(flags->messages, console.in, request.mutable_chat());
        !status.ok()) {
      return status;
    }
  }
  if (!flags->user.empty()) {
    absl::StatusOr<std::string> user = ReadText(flags->user, "--user", console.in);
    if (!user.ok()) return user.status();
    add("user", *std::move(user));
  }
  return absl::OkStatus();
}

// The text of a file for `flag`.
absl::StatusOr<std::string> ReadForm(const std::string& path, const std::string& flag) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxGuideBytes);
  if (text.ok()) return text;
  return absl::Status(text.status().code(), absl::StrCat(flag, ": ", text.status().message()));
}

absl::Status SetGuide(const TextFlags& flags, TextParameters* text) {
  const int given = !flags.json_schema.empty() + !flags.regex.empty() + !flags.grammar.empty() +
                    !flags.choices.empty();
  if (given == 0) return absl::OkStatus();
  if (given > 1) {
    return absl::InvalidArgumentError(
        "--json-schema, --regex, --grammar, --choice: only one of them may be given");
  }
  hanmo::v1::Guide* guide = text->mutable_guide();
  if (!flags.regex.empty()) guide->set_regex(flags.regex);
  for (const std::string& choice : flags.choices) guide->mutable_choice()->add_texts(choice);
  if (!flags.json_schema.empty()) {
    absl::StatusOr<std::string> schema = ReadForm(flags.json_schema, "--json-schema");
    if (!schema.ok()) return schema.status();
    guide->set_json_schema(*std::move(schema));
  }
  if (!flags.grammar.empty()) {
    absl::StatusOr<std::string> grammar = ReadForm(flags.grammar, "--grammar");
    if (!grammar.ok()) return grammar.status();
    guide->set_grammar(*std::move(grammar));
  }
  return absl::OkStatus();
}

absl::Status SetBias(const std::string& entry, TextParameters* text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits('=', 1));
  uint32_t id = 0;
  float bias = 0;
  if (!absl::SimpleAtoi(parts.first, &id) || !absl::SimpleAtof(parts.second, &bias) ||
      !NumberRange{-100, 100}.Contains(bias)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--logit-bias: must be a token id, =, and a number, -100 to 100, got \"", entry, "\""));
  }
  (*text->mutable_logit_bias())[id] = bias;
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseTokenIds(const std::vector<std::string>& texts, const std::string& flag,
                           std::vector<uint32_t>* ids) {
  for (const std::string& text : texts) {
    for (absl::string_view word :
         absl::StrSplit(text, absl::ByAnyChar(", \n\t"), absl::SkipEmpty())) {
      if (!absl::SimpleAtoi(word, &ids->emplace_back())) {
        return absl::InvalidArgumentError(
            absl::StrCat(flag, ": must be token ids, whole numbers from 0, got \"", word, "\""));
      }
    }
  }
  return absl::OkStatus();
}

void AddTextRequestFlags(CLI::App* app, TextFlags* flags) {
  AddInput(app, flags);
  AddLength(app, flags);
  AddSampling(app, flags);
  AddPenalties(app, flags);
  AddGuide(app, flags);
}

// What is of one request alone.
void AddSingle(CLI::App* app, const char* input, TextFlags* flags) {
  FlagGroup(app, input)
      .Text({"--request-id", "ID", "name of this request in the server's logs", "drawn"},
            flags->request.mutable_request_id());
  FlagGroup output(app, "Output");
  output.Switch({"--echo", "", "print what the text goes on from before it"},
                [flags] { flags->echo = true; });
  output.Count({"--logprobs", "N",
                "with --json: log probabilities of each token and of the N likeliest ones", "none"},
               0, 20,
               [flags](uint64_t count) { flags->request.mutable_text()->set_logprobs(count); });
}

void AddTextFlags(CLI::App* app, TextFlags* flags) {
  AddTextRequestFlags(app, flags);
  AddSingle(app, kInput, flags);
}

void AddCaptionFlags(CLI::App* app, TextFlags* flags) {
  AddPictureInput(app, flags);
  AddLength(app, flags);
  AddSampling(app, flags);
  AddPenalties(app, flags);
  AddSingle(app, kPictureInput, flags);
}

absl::Status CompleteTextParameters(TextFlags* flags) {
  TextParameters* text = flags->request.mutable_text();
  for (const std::string& stop : flags->stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("--stop: must be 1 to ", kMaxStopBytes, " bytes, got ", stop.size()));
    }
    text->add_stop(stop);
  }
  std::vector<uint32_t> ids;
  if (auto status = ParseTokenIds(flags->stop_token_ids, "--stop-token-id", &ids); !status.ok()) {
    return status;
  }
  text->mutable_stop_token_ids()->Assign(ids.begin(), ids.end());
  for (const std::string& entry : flags->logit_bias) {
    if (auto status = SetBias(entry, text); !status.ok()) return status;
  }
  if (auto status = SetGuide(*flags, text); !status.ok()) return status;
  if (text->has_max_tokens() && text->min_tokens() > text->max_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("--min-tokens: must be at most --max-tokens, ",
                                                   text->max_tokens(), ", got ",
                                                   text->min_tokens()));
  }
  return absl::OkStatus();
}

absl::Status CompleteTextRequest(const Console& console, TextFlags* flags) {
  if (auto status = CompleteTextParameters(flags); !status.ok()) return status;
  return ReadInput(console, flags);
}

absl::Status CompleteCaptionRequest(const Console& console, TextFlags* flags) {
  if (auto status = CompleteTextParameters(flags); !status.ok()) return status;
  hanmo::v1::Parts* parts = flags->request.mutable_parts();
  absl::StatusOr<std::string> file = ReadPicture(flags->image, "--image", console.in);
  if (!file.ok()) return file.status();
  *parts->add_parts()->mutable_picture()->mutable_data() = *std::move(file);
  if (!flags->begin.empty()) parts->add_parts()->set_text(flags->begin);
  return absl::OkStatus();
}

}  // namespace hanmo
