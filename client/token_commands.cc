// hanmo tokenize and hanmo detokenize: a model's own tokenizer, both ways.
#include <string>
#include <utility>
#include <vector>

#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "client/generation_stream.h"
#include "client/input_file.h"
#include "client/terminal_text.h"
#include "client/text_flags.h"
#include "hanmo/v1/generation.grpc.pb.h"

namespace hanmo {
namespace {

constexpr size_t kMaxIdArguments = 65536;

// What both have.
class TokenCommand : public Command {
 public:
  ExitCode Run(const Console& console) override {
    const JsonMode json = output_flags_.json;
    if (auto status = Prepare(console); !status.ok()) return ReportError(status, json, console);
    const auto channel = OpenChannel(connection_);
    if (!channel.ok()) return ReportError(channel.status(), json, console);
    if (auto status = ChooseModel(*channel, console, hanmo::v1::TASK_TEXT_TO_TEXT, &model_);
        !status.ok()) {
      return ReportError(status, json, console);
    }
    const auto stub = hanmo::v1::Generation::NewStub(*channel);
    Call call(console, connection_.timeout.value_or(kQuickTimeout));
    const grpc::Status status = Ask(stub.get(), call.context(), console);
    return status.ok() ? ExitCode::kDone : ReportError(status, json, console);
  }

 protected:
  explicit TokenCommand(CLI::App* app) : Command(app) {
    FlagGroup input(app, "Input");
    input.Text({"--model", "NAME", "whose tokenizer", "the server's only model that writes"},
               &model_);
  }

  // After the flags of the command itself.
  void AddCommonFlags() {
    AddOutputFlags(app(), false, &output_flags_);
    AddConnectionFlags(app(), "10s", &connection_);
  }

  const std::string& model() const { return model_; }
  bool json() const { return output_flags_.json != JsonMode::kOff; }

 private:
  virtual absl::Status Prepare(const Console& console) = 0;
  virtual grpc::Status Ask(hanmo::v1::Generation::Stub* stub, grpc::ClientContext* context,
                           const Console& console) = 0;

  std::string model_;
  OutputFlags output_flags_;
  ConnectionFlags connection_;
};

class TokenizeCommand final : public TokenCommand {
 public:
  explicit TokenizeCommand(CLI::App* app) : TokenCommand(app) {
    FlagGroup input(app, "Input");
    input.Text({"-t,--text,TEXT", "TEXT", "what to tokenize; - reads stdin"}, &text_)->required();
    input.Switch({"--special-tokens", "", "add those that the model's own prompts carry"},
                 [this] { request_.set_add_special_tokens(true); });
    AddCommonFlags();
    app->footer("Example:\n  hanmo tokenize --model wenzhong-gpt2-tiny --text \"春眠不觉晓\"");
  }

 private:
  absl::Status Prepare(const Console& console) override {
    absl::StatusOr<std::string> text = ReadText(text_, "--text", console.in);
    if (!text.ok()) return text.status();
    request_.set_text(*std::move(text));
    return absl::OkStatus();
  }

  grpc::Status Ask(hanmo::v1::Generation::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    request_.set_model(model());
    hanmo::v1::TokenizeResponse response;
    const grpc::Status status = stub->Tokenize(context, request_, &response);
    if (!status.ok()) return status;
    if (json()) {
      console.out << JsonLine({{"ids", response.ids()}, {"tokens", response.tokens()}});
      return status;
    }
    for (int i = 0; i < response.ids_size(); ++i) {
      const std::string token = i < response.tokens_size() ? response.tokens(i) : "";
      console.out << response.ids(i) << "\t" << SafeForTerminal(token) << "\n";
    }
    return status;
  }

  std::string text_;
  hanmo::v1::TokenizeRequest request_;
};

class DetokenizeCommand final : public TokenCommand {
 public:
  explicit DetokenizeCommand(CLI::App* app) : TokenCommand(app) {
    FlagGroup input(app, "Input");
    input.Texts({"IDS", "", "token ids, separated by spaces or commas"}, kMaxIdArguments, &ids_)
        ->required()
        ->allow_extra_args();
    input.Switch({"--skip-special-tokens", "", "leave them out of the text"},
                 [this] { request_.set_skip_special_tokens(true); });
    AddCommonFlags();
    app->footer("Example:\n  hanmo detokenize --model wenzhong-gpt2-tiny 17 402 9");
  }

 private:
  absl::Status Prepare(const Console& console) override {
    std::vector<uint32_t> ids;
    if (auto status = ParseTokenIds(ids_, "IDS", &ids); !status.ok()) return status;
    request_.mutable_ids()->Assign(ids.begin(), ids.end());
    return absl::OkStatus();
  }

  grpc::Status Ask(hanmo::v1::Generation::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    request_.set_model(model());
    hanmo::v1::DetokenizeResponse response;
    const grpc::Status status = stub->Detokenize(context, request_, &response);
    if (!status.ok()) return status;
    if (json()) {
      console.out << JsonLine({{"text", response.text()}});
    } else {
      const std::string& text = response.text();
      console.out << (console.out_is_terminal ? SafeForTerminal(text) : text) << "\n";
    }
    return status;
  }

  std::vector<std::string> ids_;
  hanmo::v1::DetokenizeRequest request_;
};

}  // namespace

std::unique_ptr<Command> MakeTokenizeCommand(CLI::App* root) {
  return std::make_unique<TokenizeCommand>(
      root->add_subcommand("tokenize", "Prints the token ids of a text.")->group("Commands"));
}

std::unique_ptr<Command> MakeDetokenizeCommand(CLI::App* root) {
  return std::make_unique<DetokenizeCommand>(
      root->add_subcommand("detokenize", "Prints the text of token ids.")->group("Commands"));
}

}  // namespace hanmo
