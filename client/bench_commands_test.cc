// hanmo bench against a server that answers as told.
#include <csignal>
#include <thread>

#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

class BenchCommandsTest : public testing::CommandFixture {
 protected:
  ExitCode Bench(const std::string& kind, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"bench", kind, "--server", server_.address(), "--model",
                                         "m", "--connections", "2"});
    std::istringstream in;
    std::ostringstream out, err;
    Interrupts interrupts;
    const ExitCode code = RunCommandLine(arguments, {in, out, err, false, false, 80, &interrupts});
    out_ = out.str();
    err_ = err.str();
    return code;
  }
};

TEST_F(BenchCommandsTest, SendsTheLoadThatWasAskedFor) {
  Answer({"text { token_ids: [1, 2] }", "text { token_ids: 3 }",
          "final { outputs { text { token_ids: [1, 2, 3] } } }"});
  const std::vector<std::string> load = {"--prompt",   "x",     "--seed", "5",   "--rate", "400",
                                         "--duration", "250ms", "--slo",  "10s", "--json"};
  ASSERT_EQ(Bench("text", load), ExitCode::kDone) << err_;
  const nlohmann::json first = Json();
  const int sent = first["sent"];
  // A hundred are expected; the standard deviation is ten.
  EXPECT_GT(sent, 50);
  EXPECT_LT(sent, 150);
  EXPECT_EQ(server_.calls(), sent);
  EXPECT_EQ(first["ok"], sent);
  EXPECT_EQ(first["within_slo"], 1);
  EXPECT_NEAR(first["tokens_per_s"].get<double>(), 3 * first["requests_per_s"].get<double>(), 1e-6);
  EXPECT_GT(first["latency_s"]["p50"], 0);
  EXPECT_GE(server_.request().text().seed(), 5u);
  // The same seed, the same arrivals.
  ASSERT_EQ(Bench("text", load), ExitCode::kDone);
  EXPECT_EQ(Json()["sent"], sent);
}

TEST_F(BenchCommandsTest, AClosedLoopOfPicturesTakesItsPromptsInTurns) {
  Answer({R"(final { outputs { picture { data: "x" } } usage { pictures: 1 steps: 4 } })"});
  std::ofstream(Path("prompts.txt")) << "山\n\n水\n";
  ASSERT_EQ(Bench("image", {"--prompts", Path("prompts.txt"), "--steps", "4", "--rate", "max",
                            "--concurrency", "3", "--duration", "100ms"}),
            ExitCode::kDone)
      << err_;
  EXPECT_THAT(out_, HasSubstr(" 0 failed"));
  EXPECT_THAT(out_, HasSubstr("pictures/s"));
  EXPECT_THAT(out_, HasSubstr("latency"));
  EXPECT_EQ(server_.request().picture().steps(), 4u);
  EXPECT_THAT(server_.request().prompt(), ::testing::AnyOf("山", "水"));
}

TEST_F(BenchCommandsTest, ATornAnswerIsAFailure) {
  Answer({"text { token_ids: [1, 2] }", "final { outputs { text { token_ids: [1] } } }"});
  EXPECT_EQ(Bench("text", {"--prompt", "x", "--rate", "max", "--duration", "20ms"}),
            ExitCode::kServerFault);
  EXPECT_THAT(out_, HasSubstr("(DATA_LOSS "));
  EXPECT_THAT(err_, HasSubstr("the deltas are not the final text"));
}

TEST_F(BenchCommandsTest, WhatFailsEveryTimeIsTheExitCode) {
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  EXPECT_EQ(Bench("text", {"--prompt", "x", "--rate", "200", "--duration", "50ms"}),
            ExitCode::kBusy);
  EXPECT_THAT(out_, HasSubstr(" 0 ok"));
}

TEST_F(BenchCommandsTest, CtrlCEndsArrivalsAndReports) {
  server_.hang = true;
  std::thread user([this] {
    server_.hanging.WaitForNotification();
    raise(SIGINT);
  });
  EXPECT_EQ(Bench("text", {"--prompt", "x", "--rate", "max", "--concurrency", "1", "--duration",
                           "1h", "--json"}),
            ExitCode::kInterrupted);
  user.join();
  EXPECT_EQ(Json()["sent"], 1);
  EXPECT_EQ(Json()["cut"], 1);
}

TEST_F(BenchCommandsTest, MisuseIsToldBeforeAnythingIsSent) {
  EXPECT_EQ(Bench("text", {"--prompt", "x"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("hanmo bench text: --rate"));
  EXPECT_EQ(Bench("text", {"--prompt", "x", "--rate", "fast"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--rate: must be a number, above 0, at most 100000, or max"));
  EXPECT_EQ(Bench("image", {"--rate", "1"}), ExitCode::kUsage);
  EXPECT_EQ(Bench("image", {"--rate", "1", "--prompt", "x", "--prompts", "f"}), ExitCode::kUsage);
  EXPECT_EQ(Bench("image", {"--rate", "1", "--prompts", Path("none")}), ExitCode::kFile);
  EXPECT_EQ(server_.calls(), 0);
}

}  // namespace
}  // namespace hanmo
