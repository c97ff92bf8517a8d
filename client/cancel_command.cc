// hanmo cancel: ends requests by their id.
#include <memory>
#include <string>

#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "hanmo/v1/generation.grpc.pb.h"

namespace hanmo {
namespace {

class CancelCommand final : public Command {
 public:
  explicit CancelCommand(CLI::App* app) : Command(app) {
    FlagGroup input(app, "Input");
    input
        .Text({"REQUEST_ID", "", "as --request-id gave it, or as the server's log shows it"},
              request_.mutable_request_id())
        ->required();
    AddOutputFlags(app, false, &output_flags_);
    AddConnectionFlags(app, "10s", &connection_);
    app->footer(
        "Example:\n"
        "  hanmo image --prompt \"青山\" --output a.png --request-id a &\n"
        "  hanmo cancel a");
  }

  ExitCode Run(const Console& console) override {
    const JsonMode json = output_flags_.json;
    const auto channel = OpenChannel(connection_);
    if (!channel.ok()) return ReportError(channel.status(), json, console);
    const auto stub = hanmo::v1::Generation::NewStub(*channel);
    Call call(console, connection_.timeout.value_or(kQuickTimeout));
    hanmo::v1::CancelResponse response;
    const grpc::Status status = stub->Cancel(call.context(), request_, &response);
    if (!status.ok()) return ReportError(status, json, console);
    if (json != JsonMode::kOff) {
      console.out << JsonLine({{"requests", response.requests()}});
    } else {
      console.out << (response.requests() == 1 ? "cancelled\n" : "all of them cancelled\n");
    }
    return ExitCode::kDone;
  }

 private:
  hanmo::v1::CancelRequest request_;
  OutputFlags output_flags_;
  ConnectionFlags connection_;
};

}  // namespace

std::unique_ptr<Command> MakeCancelCommand(CLI::App* root) {
  return std::make_unique<CancelCommand>(
      root->add_subcommand("cancel", "Ends a request that waits or runs.")->group("Commands"));
}

}  // namespace hanmo
