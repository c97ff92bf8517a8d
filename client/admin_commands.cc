// hanmo load, unload, label and drain: hanmo.v1.Admin, on the port that operators have.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "client/generation_json.h"
#include "client/model_text.h"
#include "client/terminal_text.h"
#include "hanmo/v1/admin.grpc.pb.h"

namespace hanmo {
namespace {

using hanmo::v1::Admin;

constexpr char kLoadExamples[] = R"(Examples:
  hanmo load poet                      the newest version in the repository
  hanmo load poet:3 && hanmo label poet canary 3)";

constexpr char kLabelExamples[] = R"(Examples:
  hanmo label poet canary 3            requests for "canary" get version 3
  hanmo label poet stable 3            so do those that name no version
  hanmo label poet canary --remove)";

constexpr char kDrainExample[] = R"(Example:
  hanmo drain && kill -TERM $(pidof hanmo-server))";

// What all of them have.
class AdminCommand : public Command {
 public:
  ExitCode Run(const Console& console) override {
    if (auto status = Prepare(); !status.ok()) {
      return ReportError(status, output_flags_.json, console);
    }
    const auto channel = OpenChannel(connection_);
    if (!channel.ok()) return ReportError(channel.status(), output_flags_.json, console);
    const auto stub = Admin::NewStub(*channel);
    // Loading takes as long as it takes.
    Call call(console, connection_.timeout.value_or(absl::ZeroDuration()));
    const grpc::Status status = Ask(stub.get(), call.context(), console);
    return status.ok() ? ExitCode::kDone : ReportError(status, output_flags_.json, console);
  }

 protected:
  explicit AdminCommand(CLI::App* app) : Command(app) {
    connection_.server = "127.0.0.1:8004";
    connection_.environment = "HANMO_ADMIN_SERVER";
    connection_.port = "where hanmo-server has --admin-listen";
  }

  // After the flags of the command itself.
  void AddCommonFlags(bool streams, const char* examples) {
    AddOutputFlags(app(), streams, &output_flags_);
    AddConnectionFlags(app(), "none", &connection_);
    app()->footer(examples);
  }

  bool json() const { return output_flags_.json != JsonMode::kOff; }
  const OutputFlags& output_flags() const { return output_flags_; }

 private:
  virtual absl::Status Prepare() { return absl::OkStatus(); }
  virtual grpc::Status Ask(Admin::Stub* stub, grpc::ClientContext* context,
                           const Console& console) = 0;

  OutputFlags output_flags_;
  ConnectionFlags connection_;
};

// "poet" or "poet:3" into the request's name and version.
template <typename Request>
absl::Status ParseModel(const std::string& text, Request* request) {
  const size_t colon = text.rfind(':');
  request->set_name(text.substr(0, colon));
  if (colon == std::string::npos) return absl::OkStatus();
  uint32_t version = 0;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &version) || version == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "MODEL: the version of \"", text, "\" must be a whole number, 1 or more, after the colon"));
  }
  request->set_version(version);
  return absl::OkStatus();
}

CLI::Option* AddModel(FlagGroup* group, const std::string& fallback, std::string* model) {
  return group->Text({"MODEL", "", "its name, or NAME:VERSION with a number", fallback}, model)
      ->required();
}

class LoadCommand final : public AdminCommand {
 public:
  explicit LoadCommand(CLI::App* app) : AdminCommand(app) {
    FlagGroup input(app, "Input");
    AddModel(&input, "the newest version", &model_);
    AddCommonFlags(false, kLoadExamples);
  }

 private:
  absl::Status Prepare() override { return ParseModel(model_, &request_); }

  grpc::Status Ask(Admin::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    hanmo::v1::LoadModelResponse response;
    const grpc::Status status = stub->LoadModel(context, request_, &response);
    if (!status.ok()) return status;
    const double seconds = Seconds(response.load_time());
    if (json()) {
      console.out << JsonLine({{"name", request_.name()},
                               {"version", response.version()},
                               {"load_seconds", seconds},
                               {"weight_bytes", response.weight_bytes()}});
    } else {
      console.out << SafeForTerminal(
          absl::StrFormat("%s version %d: %s of weights, loaded in %.2f s\n", request_.name(),
                          response.version(), BytesText(response.weight_bytes()), seconds));
    }
    return status;
  }

  std::string model_;
  hanmo::v1::LoadModelRequest request_;
};

class UnloadCommand final : public AdminCommand {
 public:
  explicit UnloadCommand(CLI::App* app) : AdminCommand(app) {
    FlagGroup input(app, "Input");
    AddModel(&input, "all versions", &model_);
    AddCommonFlags(false, "Example:\n  hanmo unload poet:2");
  }

 private:
  absl::Status Prepare() override { return ParseModel(model_, &request_); }

  grpc::Status Ask(Admin::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    hanmo::v1::UnloadModelResponse response;
    const grpc::Status status = stub->UnloadModel(context, request_, &response);
    if (!status.ok()) return status;
    if (json()) {
      console.out << JsonLine({{"name", request_.name()}, {"versions", response.versions()}});
    } else {
      console.out << SafeForTerminal(absl::StrCat(
          request_.name(), " version ", absl::StrJoin(response.versions(), ", "), ": unloaded\n"));
    }
    return status;
  }

  std::string model_;
  hanmo::v1::UnloadModelRequest request_;
};

class LabelCommand final : public AdminCommand {
 public:
  explicit LabelCommand(CLI::App* app) : AdminCommand(app) {
    FlagGroup input(app, "Input");
    input.Text({"MODEL", "", "its name"}, request_.mutable_name())->required();
    input.Text({"LABEL", "", "letters, digits, . _ -"}, request_.mutable_label())->required();
    CLI::Option* version = input.Count({"VERSION", "", "a version that is ready"}, 1, UINT32_MAX,
                                       [this](uint64_t one) { request_.set_version(one); });
    input.Switch({"--remove", "", "take the label away"}, [this] { remove_ = true; })
        ->excludes(version);
    AddCommonFlags(false, kLabelExamples);
  }

 private:
  absl::Status Prepare() override {
    if (remove_ || request_.version() > 0) return absl::OkStatus();
    return absl::InvalidArgumentError("VERSION: is required, or --remove");
  }

  grpc::Status Ask(Admin::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    grpc::Status status;
    std::string done;
    if (remove_) {
      hanmo::v1::RemoveLabelRequest request;
      request.set_name(request_.name());
      request.set_label(request_.label());
      hanmo::v1::RemoveLabelResponse response;
      status = stub->RemoveLabel(context, request, &response);
      done = absl::StrCat(request_.name(), ": no label ", request_.label(), "\n");
    } else {
      hanmo::v1::SetLabelResponse response;
      status = stub->SetLabel(context, request_, &response);
      done = absl::StrCat(request_.name(), ": ", request_.label(), " is version ",
                          request_.version(), "\n");
    }
    if (!status.ok()) return status;
    if (json()) {
      console.out << JsonLine({{"name", request_.name()},
                               {"label", request_.label()},
                               {"version", request_.version()}});
    } else {
      console.out << SafeForTerminal(done);
    }
    return status;
  }

  hanmo::v1::SetLabelRequest request_;
  bool remove_ = false;
};

class DrainCommand final : public AdminCommand {
 public:
  explicit DrainCommand(CLI::App* app) : AdminCommand(app) { AddCommonFlags(true, kDrainExample); }

 private:
  grpc::Status Ask(Admin::Stub* stub, grpc::ClientContext* context,
                   const Console& console) override {
    const auto reader = stub->Drain(context, {});
    hanmo::v1::DrainResponse response;
    while (reader->Read(&response)) {
      if (output_flags().json == JsonMode::kLines) console.out << Line(response) << std::flush;
      if (json() || output_flags().quiet) continue;
      console.err << (response.refusing() ? "new requests are refused, "
                                          : "health says NOT_SERVING, ")
                  << response.calls() << (response.calls() == 1 ? " call" : " calls")
                  << " under way\n";
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return status;
    if (output_flags().json == JsonMode::kOne) console.out << Line(response);
    if (!json()) console.out << absl::StrFormat("drained in %.1f s\n", Seconds(response.elapsed()));
    return status;
  }

  static std::string Line(const hanmo::v1::DrainResponse& response) {
    return JsonLine({{"calls", response.calls()},
                     {"refusing", response.refusing()},
                     {"elapsed_seconds", Seconds(response.elapsed())}});
  }
};

template <typename One>
std::unique_ptr<Command> Make(CLI::App* root, const char* name, const char* help) {
  return std::make_unique<One>(root->add_subcommand(name, help)->group("Operation"));
}

}  // namespace

std::vector<std::unique_ptr<Command>> MakeAdminCommands(CLI::App* root) {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(
      Make<LoadCommand>(root, "load", "Loads a model, or a version of it anew, and serves it."));
  commands.push_back(
      Make<UnloadCommand>(root, "unload", "Takes a model out of service and frees its memory."));
  commands.push_back(Make<LabelCommand>(root, "label", "Points a label at a version of a model."));
  commands.push_back(
      Make<DrainCommand>(root, "drain", "Lets the server finish what it has and take no more."));
  return commands;
}

}  // namespace hanmo
