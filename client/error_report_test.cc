#include "client/error_report.h"

#include <sstream>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ErrorReportTest : public ::testing::Test {
 protected:
  template <typename Status>
  ExitCode Report(const Status& status, JsonMode json = JsonMode::kOff) {
    return ReportError(status, json, {in_, out_, err_, false, false, 80, &interrupts_});
  }

  Interrupts interrupts_;
  std::istringstream in_;
  std::ostringstream out_, err_;
};

grpc::Status WithDetail(grpc::StatusCode code, const google::protobuf::Message& detail) {
  google::rpc::Status details;
  details.add_details()->PackFrom(detail);
  return grpc::Status(code, "text.top_p: wrong", details.SerializeAsString());
}

TEST_F(ErrorReportTest, EveryViolatedFieldIsALine) {
  google::rpc::BadRequest bad;
  for (const char* field : {"text.top_p", "prompt", "text.stop[2]", "text.n", "chat.messages"}) {
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description("must be in (0, 1]");
  }
  const grpc::Status status = WithDetail(grpc::StatusCode::INVALID_ARGUMENT, bad);
  EXPECT_EQ(Report(status, JsonMode::kOne), ExitCode::kUsage);
  EXPECT_EQ(err_.str(),
            "hanmo: INVALID_ARGUMENT\n"
            "  --top-p: must be in (0, 1]\n"
            "  --prompt: must be in (0, 1]\n"
            "  --stop[2]: must be in (0, 1]\n"
            "  --count: must be in (0, 1]\n"
            "  chat.messages: must be in (0, 1]\n");
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["error"]["field_violations"][1]["field"], "prompt");
}

TEST_F(ErrorReportTest, RetryInfoTellsWhen) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  EXPECT_EQ(Report(WithDetail(grpc::StatusCode::RESOURCE_EXHAUSTED, retry), JsonMode::kLines),
            ExitCode::kBusy);
  EXPECT_THAT(err_.str(), HasSubstr("try again in 1.5 s"));
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["event"], "error");
  EXPECT_EQ(json["error"]["retry_after_seconds"], 1.5);
}

TEST_F(ErrorReportTest, ServersCannotSteerTheTerminal) {
  Report(grpc::Status(grpc::StatusCode::INTERNAL, "bad\x1b[2J", "\xff not a status"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("\x1b")));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(ErrorReportTest, LocalFaultsAreUsageOrFiles) {
  EXPECT_EQ(Report(absl::InvalidArgumentError("--steps: must be 1 to 1000")), ExitCode::kUsage);
  EXPECT_EQ(Report(absl::NotFoundError("a.txt: no such file")), ExitCode::kFile);
  EXPECT_EQ(err_.str(), "hanmo: --steps: must be 1 to 1000\nhanmo: a.txt: no such file\n");
}

TEST(ExitCodeTest, EveryCodeOfGrpcHasItsNumber) {
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::OK), ExitCode::kDone);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::UNAVAILABLE), ExitCode::kUnavailable);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::DEADLINE_EXCEEDED), ExitCode::kTimeout);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::NOT_FOUND), ExitCode::kNotFound);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::PERMISSION_DENIED), ExitCode::kDenied);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::FAILED_PRECONDITION), ExitCode::kUnable);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::DATA_LOSS), ExitCode::kServerFault);
  EXPECT_EQ(CodeName(grpc::StatusCode::DEADLINE_EXCEEDED), "DEADLINE_EXCEEDED");
}

}  // namespace
}  // namespace hanmo
