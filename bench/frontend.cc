// What the front end costs: CPU time of a server process per unary call, against a gRPC callback
// server that answers the same bytes without looking at the request.
//
// All servers are child processes; ours runs the real gRPC services, checks, batcher, metrics and
// log with a worker in memory that writes one token; another one has no metrics. Rounds alternate;
// prints one JSON line with the medians of fifteen.
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "hanmo/v1/generation.grpc.pb.h"
#include "server/rpc/testing/front_end.h"
#include "server/rpc/testing/test_models.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

constexpr int kRounds = 15;
constexpr int kCalls = 4000;
constexpr int kClients = 16;

hanmo::v1::GenerateRequest Request() {
  hanmo::v1::GenerateRequest request;
  request.set_model("bare");
  for (uint32_t id = 0; id < 16; ++id) request.mutable_token_ids()->add_ids(id);
  request.mutable_text()->set_max_tokens(1);
  return request;
}

// The floor: gRPC's callback server and nothing else.
class Echo final
    : public hanmo::v1::Generation::WithRawCallbackMethod_Generate<hanmo::v1::Generation::Service> {
 public:
  explicit Echo(grpc::ByteBuffer answer) : answer_(std::move(answer)) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* rpc, const grpc::ByteBuffer*,
                                     grpc::ByteBuffer* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* reactor = rpc->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const grpc::ByteBuffer answer_;
};

// Tells the parent the address and serves until the parent closes our stdin.
void ServeUntilEof(const std::string& address) {
  std::printf("%s\n", address.c_str());
  std::fflush(stdout);
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
}

void ServeHanmo(testing::FrontEnd::Observed observed) {
  std::vector<Model> models;
  models.push_back(testing::BareModel(0, "bare"));
  testing::FrontEnd front(std::move(models), LogLevel::kInfo, observed);
  ServeUntilEof(front.server().address());
}

void ServeEcho() {
  // As long as what hanmo-server answers.
  hanmo::v1::GenerateResponse answer;
  answer.set_request_id("0123456789abcdef01234567");
  answer.set_model("bare");
  answer.add_outputs()->mutable_text()->add_token_ids(1);
  answer.mutable_usage()->set_prompt_tokens(16);
  answer.mutable_timings()->mutable_total()->set_nanos(100000);
  Echo echo(SerializeMessage(answer));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&echo);
  auto server = builder.BuildAndStart();
  ServeUntilEof(absl::StrCat("127.0.0.1:", port));
}

// A server in a process of its own.
class Child {
 public:
  explicit Child(const char* role) {
    int to_child[2];
    int from_child[2];
    if (pipe(to_child) != 0 || pipe(from_child) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to_child[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from_child[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1 /* O_WRONLY */, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    char program[] = "/proc/self/exe";
    std::string argument = role;
    char* arguments[] = {program, argument.data(), nullptr};
    if (posix_spawn(&pid_, program, &actions, nullptr, arguments, environ) != 0) std::abort();
    posix_spawn_file_actions_destroy(&actions);
    close(to_child[0]);
    close(from_child[1]);
    stdin_ = to_child[1];
    for (char c = 0; read(from_child[0], &c, 1) == 1 && c != '\n';) address_.push_back(c);
    close(from_child[0]);
    if (clock_getcpuclockid(pid_, &clock_) != 0) std::abort();
    auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    stub_ = hanmo::v1::Generation::NewStub(channel);
  }
  ~Child() {
    close(stdin_);
    waitpid(pid_, nullptr, 0);
  }

  double CpuSeconds() const {
    timespec time = {};
    clock_gettime(clock_, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  void Call(int calls) {
    const auto request = Request();
    for (int i = 0; i < calls; ++i) {
      grpc::ClientContext context;
      hanmo::v1::GenerateResponse response;
      const grpc::Status status = stub_->Generate(&context, request, &response);
      if (!status.ok()) {
        std::fprintf(stderr, "call failed: %s\n", status.error_message().c_str());
        std::abort();
      }
    }
  }

  // Microseconds of the server's CPU time per call.
  double Measure(int clients) {
    const double before = CpuSeconds();
    std::vector<std::thread> threads;
    for (int i = 0; i < clients; ++i) threads.emplace_back([&] { Call(kCalls / clients); });
    for (std::thread& thread : threads) thread.join();
    return (CpuSeconds() - before) * 1e6 / kCalls;
  }

 private:
  pid_t pid_ = 0;
  int stdin_ = -1;
  clockid_t clock_ = 0;
  std::string address_;
  std::unique_ptr<hanmo::v1::Generation::Stub> stub_;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Servers {
  Child ours{"hanmo"};
  Child unobserved{"unobserved"};
  Child echo{"echo"};
};

std::string Compare(Servers& servers, int clients) {
  std::vector<double> ours_us, echo_us, above_us, metrics_us, metrics_share;
  for (int round = 0; round < kRounds; ++round) {
    echo_us.push_back(servers.echo.Measure(clients));
    // Who comes first finds other caches.
    double unobserved = round % 2 == 0 ? servers.unobserved.Measure(clients) : 0;
    ours_us.push_back(servers.ours.Measure(clients));
    if (round % 2 != 0) unobserved = servers.unobserved.Measure(clients);
    above_us.push_back(ours_us.back() - echo_us.back());
    metrics_us.push_back(ours_us.back() - unobserved);
    metrics_share.push_back(metrics_us.back() / unobserved);
  }
  char text[256];
  std::snprintf(text, sizeof(text),
                "{\"clients\":%d,\"hanmo_us\":%.1f,\"echo_us\":%.1f,\"above_us\":%.1f,"
                "\"metrics_us\":%.2f,\"metrics_share\":%.4f}",
                clients, Median(ours_us), Median(echo_us), Median(above_us), Median(metrics_us),
                Median(metrics_share));
  return text;
}

int Main(int argc, char** argv) {
  const std::string role = argc == 2 ? argv[1] : "";
  if (role == "echo") ServeEcho();
  if (role == "hanmo") ServeHanmo(testing::FrontEnd::Observed::kYes);
  if (role == "unobserved") ServeHanmo(testing::FrontEnd::Observed::kNo);
  if (!role.empty()) return 0;
  Servers servers;
  for (Child* child : {&servers.ours, &servers.unobserved, &servers.echo}) child->Call(500);
  std::printf(
      "{\"bench\":\"frontend\",\"unit\":\"server CPU per unary call\",\"rounds\":%d,"
      "\"calls\":%d,\"one\":%s,\"many\":%s}\n",
      kRounds, kCalls, Compare(servers, 1).c_str(), Compare(servers, kClients).c_str());
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as hanmo-server does
  return hanmo::Main(argc, argv);
}
