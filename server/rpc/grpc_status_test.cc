#include "server/rpc/grpc_status.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/batcher/sink.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

TEST(GrpcStatusTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), nullptr).ok()); }

TEST(GrpcStatusTest, ViolationsBecomeBadRequest) {
  Violations violations;
  violations.CheckRange("text.top_k", 7, 0, 5);
  violations.Add("prompt", "must not be empty");
  const grpc::Status status = ToGrpcStatus(violations.ToStatus(), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const google::rpc::Status details = Details(status);
  EXPECT_EQ(details.code(), 3);
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(0).UnpackTo(&bad));
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).field(), "text.top_k");
  EXPECT_EQ(bad.field_violations(0).description(), "must be in [0, 5], got 7");
  EXPECT_EQ(status.error_message(),
            "text.top_k: must be in [0, 5], got 7; prompt: must not be empty");
}

TEST(GrpcStatusTest, WhatARetryCanMendCarriesRetryInfo) {
  for (const absl::Status& error :
       {absl::ResourceExhaustedError("full"), absl::UnavailableError("draining")}) {
    const google::rpc::Status details = Details(ToGrpcStatus(error, nullptr));
    ASSERT_EQ(details.details_size(), 1);
    google::rpc::RetryInfo retry;
    ASSERT_TRUE(details.details(0).UnpackTo(&retry));
    EXPECT_EQ(retry.retry_delay().seconds(), 1);
  }
}

TEST(GrpcStatusTest, RetryInfoSaysWhatTheBatcherPredicts) {
  absl::Status error = absl::ResourceExhaustedError("full");
  error.SetPayload(kRetryAfterMs, absl::Cord("2500"));
  const google::rpc::Status details = Details(ToGrpcStatus(error, nullptr));
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 2);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
}

TEST(GrpcStatusTest, OtherErrorsAreACast) {
  const grpc::Status status = ToGrpcStatus(absl::DeadlineExceededError("late"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(status.error_message(), "late");
  EXPECT_EQ(status.error_details(), "");
}

}  // namespace
}  // namespace hanmo
