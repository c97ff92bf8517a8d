// hanmo text over a real socket.
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/time/time.h"
#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TextCommandTest : public testing::CommandFixture {
 protected:
  TextCommandTest() {
    Answer({R"(queued { request_id: "r" position: 0 })",
            R"(text { index: 0 text: "明月" token_ids: 5 })",
            R"(text { index: 0 text: "\033[2J" token_ids: 6 })",
            R"(final { request_id: "r" model: "poet"
                       outputs { index: 0 text { text: "明月\033[2J" token_ids: [5, 6] seed: 42
                                                 finish_reason: FINISH_REASON_EOS } }
                       usage { prompt_tokens: 3 completion_tokens: 2
                               device_time { nanos: 250000000 } }
                       timings { total { seconds: 1 } } })"});
  }

  hanmo::v1::GenerateRequest Sent(const std::string& text) {
    return testing::ParseProto<hanmo::v1::GenerateRequest>(text);
  }
};

TEST_F(TextCommandTest, TheTextIsStdoutAndTheSeedIsTold) {
  EXPECT_EQ(Run({"text", "--model", "poet", "--prompt", "山"}), ExitCode::kDone);
  EXPECT_EQ(out_, "明月\x1b[2J\n");  // a file gets the very bytes
  EXPECT_EQ(err_, "poet, seed 42, 2 tokens, ended by eos, 1.00 s\n");
  EXPECT_EQ(server_.request().DebugString(),
            Sent(R"(model: "poet" prompt: "山" text {})").DebugString());
}

TEST_F(TextCommandTest, ATerminalGetsNoControlCharacters) {
  terminal_ = true;
  EXPECT_EQ(Run({"text", "--model", "poet", "--echo", "山"}), ExitCode::kDone);
  EXPECT_EQ(out_, "山明月\uFFFD[2J\n");
}

TEST_F(TextCommandTest, EveryFlagReachesItsField) {
  ASSERT_EQ(Run({"text",
                 "--model",
                 "poet",
                 "--model-version",
                 "canary",
                 "--prompt",
                 "-",
                 "--request-id",
                 "r-1",
                 "--max-tokens",
                 "9",
                 "--min-tokens",
                 "2",
                 "--temperature",
                 "0",
                 "--top-k",
                 "40",
                 "--top-p",
                 "0.5",
                 "--min-p",
                 "0.25",
                 "--repetition-penalty",
                 "1.5",
                 "--presence-penalty",
                 "-1",
                 "--frequency-penalty",
                 "2",
                 "--logit-bias",
                 "7=-100",
                 "--logit-bias",
                 "8=0.5",
                 "--stop",
                 "。",
                 "--stop",
                 "a,b",
                 "--stop-token-id",
                 "3,4",
                 "--include-stop",
                 "--ignore-eos",
                 "--seed",
                 "18446744073709551615",
                 "-n",
                 "2",
                 "--logprobs",
                 "5",
                 "--json"},
                "山\n水\n"),
            ExitCode::kDone)
      << err_;
  EXPECT_EQ(server_.request().DebugString(), Sent(R"(
      model: "poet" version: "canary" request_id: "r-1" prompt: "山\n水"
      text { max_tokens: 9 min_tokens: 2 temperature: 0 top_k: 40 top_p: 0.5 min_p: 0.25
             repetition_penalty: 1.5 presence_penalty: -1 frequency_penalty: 2
             logit_bias { key: 7 value: -100 } logit_bias { key: 8 value: 0.5 }
             stop: "。" stop: "a,b" stop_token_ids: [3, 4] include_stop: true ignore_eos: true
             seed: 18446744073709551615 n: 2 logprobs: 5 })")
                                                 .DebugString());
}

TEST_F(TextCommandTest, AFormIsReadFromItsFlag) {
  std::ofstream(Path("schema.json")) << R"({"type": "object"})";
  std::ofstream(Path("form.lark")) << "start: \"a\"\n";
  const auto guide = [this](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"text", "--model", "poet", "山"});
    EXPECT_EQ(Run(flags), ExitCode::kDone) << err_;
    return server_.request().text().guide();
  };
  EXPECT_EQ(guide({"--json-schema", Path("schema.json")}).json_schema(), R"({"type": "object"})");
  EXPECT_EQ(guide({"--grammar", Path("form.lark")}).grammar(), "start: \"a\"\n");
  EXPECT_EQ(guide({"--regex", "[0-9]+"}).regex(), "[0-9]+");
  EXPECT_THAT(guide({"--choice", "是", "--choice", "否,"}).choice().texts(),
              ::testing::ElementsAre("是", "否,"));
}

TEST_F(TextCommandTest, AConversationHasItsOrder) {
  std::ofstream(Path("m.json")) << R"([{"role":"user","content":"a"},
                                       {"role":"assistant","content":"b"}])";
  ASSERT_EQ(
      Run({"text", "--model", "poet", "--system", "s", "--messages", Path("m.json"), "--user", "-"},
          "c\n"),
      ExitCode::kDone);
  EXPECT_EQ(server_.request().chat().DebugString(), Sent(R"(chat {
      messages { role: "system" content: "s" } messages { role: "user" content: "a" }
      messages { role: "assistant" content: "b" } messages { role: "user" content: "c" } })")
                                                        .chat()
                                                        .DebugString());
  EXPECT_FALSE(server_.request().chat().has_thinking());
  ASSERT_EQ(Run({"text", "--model", "poet", "--user", "c", "--no-thinking"}), ExitCode::kDone);
  EXPECT_TRUE(server_.request().chat().has_thinking());
  EXPECT_FALSE(server_.request().chat().thinking());
  ASSERT_EQ(Run({"text", "--model", "poet", "--user", "c", "--thinking"}), ExitCode::kDone);
  EXPECT_TRUE(server_.request().chat().thinking());
  ASSERT_EQ(Run({"text", "--model", "poet", "--token-ids", "5, 17,9"}), ExitCode::kDone);
  EXPECT_EQ(server_.request().token_ids().ids_size(), 3);
}

TEST_F(TextCommandTest, JsonIsOneObject) {
  ASSERT_EQ(Run({"text", "--model", "poet", "山", "--json"}), ExitCode::kDone);
  const auto json = Json();
  EXPECT_EQ(json["text"], "明月\x1b[2J");
  EXPECT_EQ(json["token_ids"], nlohmann::json({5, 6}));
  EXPECT_EQ(json["finish_reason"], "eos");
  EXPECT_EQ(json["seed"], 42);
  EXPECT_EQ(json["usage"]["completion_tokens"], 2);
  EXPECT_EQ(json["usage"]["device_seconds"], 0.25);
  EXPECT_EQ(json["timings"]["total_seconds"], 1.0);
  EXPECT_THAT(out_, Not(HasSubstr("\x1b")));
}

TEST_F(TextCommandTest, JsonLinesAreAnEventEach) {
  ASSERT_EQ(Run({"text", "--model", "poet", "山", "--json-lines"}), ExitCode::kDone);
  std::istringstream lines(out_);
  std::vector<std::string> kinds;
  for (std::string line; std::getline(lines, line);) {
    kinds.push_back(nlohmann::json::parse(line)["event"]);
  }
  EXPECT_THAT(kinds, ::testing::ElementsAre("queued", "text", "text", "final"));
}

TEST_F(TextCommandTest, SeveralTextsWaitForTheirEnd) {
  Answer({R"(text { index: 1 text: "乙" })", R"(text { index: 0 text: "甲" })",
          R"(final { model: "poet"
                     outputs { index: 0 text { text: "甲" seed: 1
                                               finish_reason: FINISH_REASON_LENGTH } }
                     outputs { index: 1 text { text: "乙" seed: 2
                                               finish_reason: FINISH_REASON_STOP } } })"});
  ASSERT_EQ(Run({"text", "--model", "poet", "山", "-n", "2"}), ExitCode::kDone);
  EXPECT_EQ(out_,
            "[seed 1, 0 tokens, ended by length]\n甲\n\n[seed 2, 0 tokens, ended by stop]\n乙\n");
  ASSERT_EQ(Run({"text", "--model", "poet", "山", "-n", "2", "--json"}), ExitCode::kDone);
  EXPECT_EQ(Json()["outputs"][1]["text"], "乙");
}

TEST_F(TextCommandTest, WrongFlagsAreToldBeforeAnythingIsSent) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--top-p", "1.5"}, "--top-p: must be a number, above 0, at most 1"},
      {{"--temperature", "nan"}, "--temperature: must be a number, 0 to 100"},
      {{"-n", "17"}, "must be a whole number, 1 to 16"},
      {{"--stop", ""}, "--stop: must be 1 to 256 bytes, got 0"},
      {{"--logit-bias", "7"}, "--logit-bias: must be a token id, =, and a number"},
      {{"--logit-bias", "7=101"}, "-100 to 100"},
      {{"--stop-token-id", "x"}, "--stop-token-id: must be token ids"},
      {{"--min-tokens", "9", "--max-tokens", "8"}, "--min-tokens: must be at most --max-tokens"},
      {{"--user", "u"}, "--user"},
      {{"--regex", "a", "--choice", "a"}, "only one of them"},
      {{"--grammar", "/nowhere"}, "--grammar: /nowhere"},
      {{"--no-thinking"}, "--no-thinking: needs a conversation"},
      {{"--thinking", "--no-thinking"}, "--no-thinking"},
      {{"--prompt", "\xff"}, "must be valid UTF-8"},
      {{"--json", "--json-lines"}, "--json"},
      {{"--cert", "c.pem"}, "--cert and --key: must be given together"},
      {{"--ca", "/no/such.pem"}, "/no/such.pem"},
      {{"--ca", "/dev/null"}, "--ca: /dev/null is no PEM file with a CERTIFICATE"},
      {{"--no-such-flag"}, "--no-such-flag"},
  };
  for (const auto& [flags, message] : cases) {
    std::vector<std::string> arguments = {"text", "--model", "poet"};
    if (flags[0] != "--prompt") arguments.insert(arguments.end(), {"--prompt", "山"});
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const ExitCode code = Run(arguments);
    EXPECT_EQ(code, flags.back().rfind("/no", 0) == 0 ? ExitCode::kFile : ExitCode::kUsage)
        << message;
    EXPECT_THAT(err_, HasSubstr(message));
  }
  EXPECT_EQ(Run({"text", "--model", "poet"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--prompt: must not be empty"));
  EXPECT_EQ(server_.calls(), 0);
}

TEST_F(TextCommandTest, AFailureAfterHalfATextEndsTheLine) {
  server_.events.pop_back();
  server_.status = grpc::Status(grpc::StatusCode::INTERNAL, "the worker died twice");
  EXPECT_EQ(Run({"text", "--model", "poet", "山"}), ExitCode::kServerFault);
  EXPECT_EQ(out_, "明月\x1b[2J\n");
  EXPECT_EQ(err_, "hanmo: INTERNAL: the worker died twice\n");
}

TEST_F(TextCommandTest, AStreamWithoutItsFinalEventIsAFault) {
  server_.events.pop_back();
  EXPECT_EQ(Run({"text", "--model", "poet", "山", "--json"}), ExitCode::kServerFault);
  EXPECT_EQ(Json()["error"]["code"], "DATA_LOSS");
}

TEST_F(TextCommandTest, TheOnlyModelOfTheTaskNeedsNoName) {
  server_.models.push_back(testing::ParseProto<hanmo::v1::DescribeModelResponse>(
      R"(name: "poet" tasks: TASK_TEXT_TO_TEXT)"));
  server_.models.push_back(testing::ParseProto<hanmo::v1::DescribeModelResponse>(
      R"(name: "painter" tasks: TASK_TEXT_TO_PICTURE)"));
  ASSERT_EQ(Run({"text", "山"}), ExitCode::kDone);
  EXPECT_EQ(server_.request().model(), "poet");
  server_.models[1].set_tasks(0, hanmo::v1::TASK_TEXT_TO_TEXT);
  EXPECT_EQ(Run({"text", "山"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--model: must be one of poet, painter"));
  server_.models.clear();
  EXPECT_EQ(Run({"text", "山"}), ExitCode::kUsage);
}

TEST_F(TextCommandTest, CtrlCCancelsTheCall) {
  server_.events.resize(2);
  server_.hang = true;
  std::thread user([this] {
    server_.hanging.WaitForNotification();
    kill(getpid(), SIGINT);
  });
  EXPECT_EQ(Run({"text", "--model", "poet", "山"}), ExitCode::kInterrupted);
  user.join();
  EXPECT_EQ(err_, "hanmo: interrupted\n");
  // The server stops working on it.
  EXPECT_TRUE(server_.cancelled.WaitForNotificationWithTimeout(absl::Minutes(1)));
}

TEST_F(TextCommandTest, TheTimeoutIsTheCallsDeadline) {
  server_.hang = true;
  EXPECT_EQ(Run({"text", "--model", "poet", "山", "--timeout", "2s"}), ExitCode::kTimeout);
  EXPECT_TRUE(server_.cancelled.WaitForNotificationWithTimeout(absl::Minutes(1)));
}

}  // namespace
}  // namespace hanmo
