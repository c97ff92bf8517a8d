// The program as a whole, and the commands without a test file of their own, over a real socket.
#include "client/command_line.h"

#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

class CommandLineTest : public testing::CommandFixture {
 protected:
  ExitCode RunBare(const std::vector<std::string>& arguments) {
    std::istringstream in;
    std::ostringstream out;
    std::ostringstream err;
    Interrupts interrupts;
    const ExitCode code = RunCommandLine(arguments, {in, out, err, false, false, 80, &interrupts});
    out_ = out.str();
    err_ = err.str();
    return code;
  }
};

TEST_F(CommandLineTest, HelpIsOnStdoutAndMisuseOnStderr) {
  EXPECT_EQ(RunBare({"--help"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("Exit codes:"));
  EXPECT_EQ(RunBare({"image", "--help"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("Usage: hanmo image"));
  EXPECT_THAT(out_, HasSubstr("denoising steps (1 to 1000; default: the model's)"));
  EXPECT_EQ(RunBare({"--version"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("hanmo "));
  EXPECT_EQ(RunBare({}), ExitCode::kUsage);
  EXPECT_EQ(RunBare({"paint"}), ExitCode::kUsage);
  EXPECT_EQ(out_, "");
  EXPECT_THAT(err_, HasSubstr("\"hanmo --help\" tells the flags"));
}

TEST_F(CommandLineTest, NobodyAtTheAddressIsUnavailable) {
  // Port 1 is no one's; the call must not wait.
  EXPECT_EQ(RunBare({"models", "--server", "127.0.0.1:1"}), ExitCode::kUnavailable);
  EXPECT_THAT(err_, HasSubstr("is hanmo-server listening there"));
  EXPECT_EQ(RunBare({"models", "--server", "localhost"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--server: must be HOST:PORT or unix:PATH"));
}

TEST_F(CommandLineTest, ModelsAreListedAndDescribed) {
  server_.models.push_back(testing::ParseProto<hanmo::v1::DescribeModelResponse>(R"(
      name: "painter" tasks: TASK_TEXT_TO_PICTURE state: MODEL_STATE_READY workers: 2
      version: 2 labels: "stable"
      architecture: "StableDiffusionPipeline" dtype: "bfloat16" weight_bytes: 1572864
      picture { default_width: 64 default_height: 32 size_multiple: 8 min_size: 8 max_size: 512
                default_steps: 20 max_steps: 1000 default_guidance: 7.5 default_sampler: "ddim"
                samplers: "ddim" samplers: "lcm" prompt_tokens: 77 has_reranker: true })"));
  server_.models.push_back(testing::ParseProto<hanmo::v1::DescribeModelResponse>(R"(
      name: "broken" tasks: TASK_TEXT_TO_TEXT state: MODEL_STATE_FAILED
      state_detail: "wte.weight: expected [10, 4]\033[2J")"));
  ASSERT_EQ(Run({"models"}), ExitCode::kDone);
  EXPECT_EQ(out_,
            "NAME     VERSION   STATE   TASKS\n"
            "painter  2 stable  ready   text-to-picture\n"
            "broken             failed  text-to-text\n");
  ASSERT_EQ(Run({"models", "painter"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("ready on 2 workers"));
  EXPECT_THAT(out_, HasSubstr("2, labelled stable"));
  EXPECT_THAT(out_, HasSubstr("1.5 MiB as bfloat16"));
  EXPECT_THAT(out_, HasSubstr("yes, for --best-of"));
  EXPECT_THAT(out_, HasSubstr("--steps 20 --guidance 7.5 --sampler ddim"));
  ASSERT_EQ(Run({"models", "broken"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("failed: wte.weight: expected [10, 4]\uFFFD[2J"));
  ASSERT_EQ(Run({"models", "--json"}), ExitCode::kDone);
  EXPECT_EQ(Json()["models"][1]["state"], "failed");
  EXPECT_EQ(Json()["models"][0]["versions"][0]["labels"], nlohmann::json({"stable"}));
  ASSERT_EQ(Run({"models", "painter", "--json"}), ExitCode::kDone);
  EXPECT_EQ(Json()["picture"]["samplers"], nlohmann::json({"ddim", "lcm"}));
  EXPECT_EQ(Json()["picture"]["has_reranker"], true);
  EXPECT_EQ(Run({"models", "poet"}), ExitCode::kNotFound);
}

TEST_F(CommandLineTest, HealthIsAnExitCode) {
  EXPECT_EQ(Run({"health"}), ExitCode::kDone);
  EXPECT_EQ(out_, "SERVING\n");
  server_.health = {HealthCheckResponse::NOT_SERVING};
  EXPECT_EQ(Run({"health", "painter", "--json"}), ExitCode::kUnavailable);
  EXPECT_EQ(Json()["service"], "painter");
  EXPECT_EQ(Json()["status"], "NOT_SERVING");
  server_.status = grpc::Status(grpc::StatusCode::NOT_FOUND, "service: unknown");
  EXPECT_EQ(Run({"health", "poet"}), ExitCode::kNotFound);
}

TEST_F(CommandLineTest, HealthWaitsAndWatches) {
  server_.health = {HealthCheckResponse::NOT_SERVING, HealthCheckResponse::SERVING};
  EXPECT_EQ(Run({"health", "--wait", "30s"}), ExitCode::kDone);
  EXPECT_EQ(out_, "SERVING\n");
  EXPECT_EQ(Run({"health", "--watch"}), ExitCode::kUnavailable);  // the server goes
  EXPECT_EQ(out_, "NOT_SERVING\nSERVING\n");
  server_.health = {HealthCheckResponse::SERVICE_UNKNOWN};
  EXPECT_EQ(Run({"health", "poet", "--wait", "30s"}), ExitCode::kNotFound);
  EXPECT_EQ(RunBare({"health", "--wait", "50ms", "--server", "127.0.0.1:1"}), ExitCode::kTimeout);
}

TEST_F(CommandLineTest, WrongOperationsAreToldBeforeAnythingIsSent) {
  EXPECT_EQ(Run({"load", "poet:0"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("MODEL: the version of \"poet:0\" must be a whole number"));
  EXPECT_EQ(Run({"unload", "poet:new"}), ExitCode::kUsage);
  EXPECT_EQ(Run({"label", "poet", "canary"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("VERSION: is required, or --remove"));
  EXPECT_EQ(Run({"label", "poet", "canary", "2", "--remove"}), ExitCode::kUsage);
  EXPECT_EQ(RunBare({"drain", "--server", "127.0.0.1:1"}), ExitCode::kUnavailable);
  EXPECT_EQ(RunBare({"load", "--help"}), ExitCode::kDone);
  EXPECT_THAT(out_, HasSubstr("default: HANMO_ADMIN_SERVER, else 127.0.0.1:8004"));
}

TEST_F(CommandLineTest, TokensGoBothWays) {
  ASSERT_EQ(Run({"tokenize", "--model", "poet", "--text", "-"}, "ab\n"), ExitCode::kDone);
  EXPECT_EQ(out_, "97\ta\n98\tb\n");
  ASSERT_EQ(Run({"tokenize", "--model", "poet", "ab", "--json"}), ExitCode::kDone);
  EXPECT_EQ(Json()["ids"], nlohmann::json({97, 98}));
  ASSERT_EQ(Run({"detokenize", "--model", "poet", "97,98", "99"}), ExitCode::kDone);
  EXPECT_EQ(out_, "abc\n");
  EXPECT_EQ(Run({"detokenize", "--model", "poet", "x"}), ExitCode::kUsage);
}

}  // namespace
}  // namespace hanmo
