// hanmo models: what the server can generate with.
#include <string>

#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "client/model_text.h"
#include "client/terminal_text.h"
#include "hanmo/v1/models.grpc.pb.h"

namespace hanmo {
namespace {

constexpr char kModelsExamples[] = R"(Examples:
  hanmo models
  hanmo models taiyi-sd-tiny
  hanmo models --json | jq -r '.models[] | select(.state == "ready") | .name')";

class ModelsCommand final : public Command {
 public:
  explicit ModelsCommand(CLI::App* app) : Command(app) {
    FlagGroup group(app, "Input");
    CLI::Option* name = group.Text({"NAME", "", "tell everything about this model"}, &name_);
    group
        .Text({"--model-version", "VERSION", "of this version, a number or a label",
               "the one that requests get"},
              &version_)
        ->needs(name);
    AddOutputFlags(app, false, &output_flags_);
    AddConnectionFlags(app, "10s", &connection_);
    app->footer(kModelsExamples);
  }

  ExitCode Run(const Console& console) override {
    const auto channel = OpenChannel(connection_);
    if (!channel.ok()) return ReportError(channel.status(), output_flags_.json, console);
    const auto stub = hanmo::v1::Models::NewStub(*channel);
    Call call(console, connection_.timeout.value_or(kQuickTimeout));
    const grpc::Status status =
        name_.empty() ? List(stub.get(), &call, console) : Describe(stub.get(), &call, console);
    if (!status.ok()) return ReportError(status, output_flags_.json, console);
    return ExitCode::kDone;
  }

 private:
  grpc::Status List(hanmo::v1::Models::Stub* stub, Call* call, const Console& console) const {
    hanmo::v1::ListModelsResponse response;
    const grpc::Status status = stub->ListModels(call->context(), {}, &response);
    if (!status.ok()) return status;
    if (output_flags_.json == JsonMode::kOne) {
      console.out << JsonLine(ListJson(response));
    } else {
      console.out << SafeForTerminal(ListText(response));
    }
    return status;
  }

  grpc::Status Describe(hanmo::v1::Models::Stub* stub, Call* call, const Console& console) const {
    hanmo::v1::DescribeModelRequest request;
    request.set_name(name_);
    request.set_version(version_);
    hanmo::v1::DescribeModelResponse response;
    const grpc::Status status = stub->DescribeModel(call->context(), request, &response);
    if (!status.ok()) return status;
    if (output_flags_.json == JsonMode::kOne) {
      console.out << JsonLine(DescriptionJson(response));
    } else {
      console.out << SafeForTerminal(DescriptionText(response));
    }
    return status;
  }

  std::string name_;
  std::string version_;
  OutputFlags output_flags_;
  ConnectionFlags connection_;
};

}  // namespace

std::unique_ptr<Command> MakeModelsCommand(CLI::App* root) {
  return std::make_unique<ModelsCommand>(
      root->add_subcommand("models", "Lists the server's models, or describes one.")
          ->group("Commands"));
}

}  // namespace hanmo
