#include "server/telemetry/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Get(const std::string& address, const std::string& path) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(port));
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)), 0);
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char bytes[4096];
  ssize_t size = 0;
  while ((size = read(fd, bytes, sizeof(bytes))) > 0) answer.append(bytes, size);
  close(fd);
  return answer;
}

TEST(MetricsServerTest, ServesOurFamiliesAndTheProcess) {
  Metrics metrics({{"poet", "text"}}, 1, "0");
  auto server = MetricsServer::Start({.address = "127.0.0.1:0"}, metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string answer = Get((*server)->address(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("hanmo_requests_total{"));
  EXPECT_THAT(answer, HasSubstr("hanmo_queued_requests 0"));
  EXPECT_THAT(answer, HasSubstr("# TYPE hanmo_certificate_expiry_timestamp_seconds gauge"));
  EXPECT_THAT(answer, Not(HasSubstr("vllm:")));
  EXPECT_THAT(answer, HasSubstr("process_open_fds "));
  EXPECT_THAT(answer, HasSubstr("process_cpu_seconds_total "));
  EXPECT_THAT(Get((*server)->address(), "/other"), HasSubstr("404"));
}

TEST(MetricsServerTest, SaysWhichAddressItCannotHave) {
  Metrics metrics({}, 0, "0");
  auto first = MetricsServer::Start({.address = "127.0.0.1:0"}, metrics);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = MetricsServer::Start({.address = (*first)->address()}, metrics);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--metrics-listen"));
}

}  // namespace
}  // namespace hanmo
