// hanmo top against an HTTP server in this process.
#include <httplib.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

class TopCommandTest : public ::testing::Test {
 protected:
  TopCommandTest() {
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      const int reading = readings_++;
      response.status = status_;
      response.set_content(
          "hanmo_requests_waiting{model=\"poet\"} 0\n"
          "hanmo_requests_total{model=\"poet\",task=\"text\",code=\"OK\"} " +
              std::to_string(1000 * reading) + "\n" + more_,
          "text/plain");
    });
    // It queues connections from here on.
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
  }
  ~TopCommandTest() override {
    server_.stop();
    thread_.join();
  }

  ExitCode Run(std::vector<std::string> arguments) {
    return RunAt("127.0.0.1:" + std::to_string(port_), std::move(arguments));
  }

  ExitCode RunAt(const std::string& address, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"top", "--metrics", address});
    std::istringstream in;
    std::ostringstream out, err;
    Interrupts interrupts;
    const ExitCode code = RunCommandLine(arguments, {in, out, err, false, false, 80, &interrupts});
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  std::atomic<int> readings_{0};
  int status_ = 200;
  std::string more_;
  std::string out_;
  std::string err_;

 private:
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

TEST_F(TopCommandTest, OnceIsOneInterval) {
  ASSERT_EQ(Run({"--once", "--interval", "10ms"}), ExitCode::kDone) << err_;
  EXPECT_EQ(readings_, 2);
  EXPECT_THAT(out_, HasSubstr("MODEL"));
  EXPECT_THAT(out_, HasSubstr("poet"));
  EXPECT_EQ(out_.find('\x1b'), std::string::npos);
  ASSERT_EQ(Run({"--once", "--interval", "10ms", "--json"}), ExitCode::kDone);
  const auto json = nlohmann::json::parse(out_);
  EXPECT_EQ(json["models"][0]["task"], "text");
  EXPECT_NEAR(json["models"][0]["requests_per_s"].get<double>() * json["seconds"].get<double>(),
              1000, 1e-6);
}

TEST_F(TopCommandTest, WhatIsNoMetricsIsAnError) {
  more_ = "<html>\n";
  EXPECT_EQ(Run({"--once"}), ExitCode::kServerFault);
  EXPECT_THAT(err_, HasSubstr("line 3 of the metrics is malformed"));
  status_ = 404;
  EXPECT_EQ(Run({"--once"}), ExitCode::kUnavailable);
  EXPECT_THAT(err_, HasSubstr("answers with HTTP 404"));
  EXPECT_EQ(RunAt("127.0.0.1:1", {"--json"}), ExitCode::kUnavailable);
  EXPECT_THAT(out_, HasSubstr(R"({"error":{"code":"UNAVAILABLE")"));
  EXPECT_EQ(RunAt("localhost", {}), ExitCode::kUsage);
}

}  // namespace
}  // namespace hanmo
