// hanmo health: grpc.health.v1 for scripts and probes.
#include <string>

#include "absl/time/clock.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/error_report.h"
#include "client/flag_group.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace hanmo {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr absl::Duration kRewatch = absl::Milliseconds(100);

constexpr char kHealthExamples[] = R"(Examples:
  hanmo health                         exits with 0 when the server serves, else with 4
  hanmo health taiyi-sd-tiny           of one model
  hanmo health --wait 60s              returns once the server, which may just be starting, serves
  hanmo health --watch                 a line for each change, until Ctrl-C)";

class HealthCommand final : public Command {
 public:
  explicit HealthCommand(CLI::App* app) : Command(app) {
    FlagGroup input(app, "Input");
    input.Text({"SERVICE", "",
                "a model's name, hanmo.v1.Generation or hanmo.v1.Models; none asks "
                "for the server as a whole"},
               &service_);
    FlagGroup mode(app, "Instead of asking once");
    CLI::Option* wait = mode.Time({"--wait", "TIME", "until it serves, at most this long"}, "",
                                  [this](absl::Duration limit) { wait_ = limit; });
    mode.Switch({"--watch", "", "print the state and each change of it"}, [this] { watch_ = true; })
        ->excludes(wait);
    AddOutputFlags(app, false, &output_flags_);
    AddConnectionFlags(app, "10s, none for --watch", &connection_);
    app->footer(kHealthExamples);
  }

  ExitCode Run(const Console& console) override {
    const JsonMode json = output_flags_.json;
    const auto channel = OpenChannel(connection_);
    if (!channel.ok()) return ReportError(channel.status(), json, console);
    const auto stub = Health::NewStub(*channel);
    const grpc::Status status = watch_                         ? Watch(stub.get(), console)
                                : wait_ > absl::ZeroDuration() ? Wait(stub.get(), console)
                                                               : Check(stub.get(), console);
    if (!status.ok()) return ReportError(status, json, console);
    return state_ == HealthCheckResponse::SERVING           ? ExitCode::kDone
           : state_ == HealthCheckResponse::SERVICE_UNKNOWN ? ExitCode::kNotFound
                                                            : ExitCode::kUnavailable;
  }

 private:
  HealthCheckRequest Request() const {
    HealthCheckRequest request;
    request.set_service(service_);
    return request;
  }

  void Print(const Console& console) const {
    const std::string name = HealthCheckResponse::ServingStatus_Name(state_);
    if (output_flags_.json == JsonMode::kOff) {
      console.out << name << "\n" << std::flush;
    } else {
      console.out << JsonLine({{"service", service_}, {"status", name}}) << std::flush;
    }
  }

  grpc::Status Check(Health::Stub* stub, const Console& console) {
    Call call(console, connection_.timeout.value_or(kQuickTimeout));
    HealthCheckResponse response;
    const grpc::Status status = stub->Check(call.context(), Request(), &response);
    if (!status.ok()) return status;
    state_ = response.status();
    Print(console);
    return status;
  }

  grpc::Status Watch(Health::Stub* stub, const Console& console) {
    Call call(console, connection_.timeout.value_or(absl::ZeroDuration()));
    const auto reader = stub->Watch(call.context(), Request());
    HealthCheckResponse response;
    while (reader->Read(&response)) {
      state_ = response.status();
      Print(console);
    }
    return reader->Finish();
  }

  // Outlasts a server that is not there yet, or goes and comes back.
  grpc::Status Wait(Health::Stub* stub, const Console& console) {
    const absl::Time deadline = absl::Now() + wait_;
    while (true) {
      Call call(console, deadline - absl::Now());
      call.context()->set_wait_for_ready(true);
      const auto reader = stub->Watch(call.context(), Request());
      HealthCheckResponse response;
      while (reader->Read(&response)) {
        state_ = response.status();
        if (state_ != HealthCheckResponse::SERVING &&
            state_ != HealthCheckResponse::SERVICE_UNKNOWN) {
          continue;
        }
        Print(console);
        call.context()->TryCancel();
        reader->Finish();
        return grpc::Status::OK;
      }
      const grpc::Status status = reader->Finish();
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return status;
      // A server that is going answers at once, again and again.
      absl::SleepFor(kRewatch);
    }
  }

  std::string service_;
  absl::Duration wait_;
  bool watch_ = false;
  OutputFlags output_flags_;
  ConnectionFlags connection_;
  HealthCheckResponse::ServingStatus state_ = HealthCheckResponse::UNKNOWN;
};

}  // namespace

std::unique_ptr<Command> MakeHealthCommand(CLI::App* root) {
  return std::make_unique<HealthCommand>(
      root->add_subcommand("health", "Asks whether the server or a model serves.")
          ->group("Commands"));
}

}  // namespace hanmo
