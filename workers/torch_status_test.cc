#include "workers/torch_status.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>

namespace hanmo {
namespace {

using ::testing::HasSubstr;

TEST(CatchTorchTest, PassesAStatusThrough) {
  EXPECT_TRUE(CatchTorch([] { return absl::OkStatus(); }).ok());
  EXPECT_EQ(CatchTorch([] { return absl::NotFoundError("x"); }), absl::NotFoundError("x"));
}

TEST(CatchTorchTest, MemoryThatCannotBeHadIsResourceExhausted) {
  const absl::Status torch = CatchTorch([] {
    at::empty({int64_t{1} << 50}, at::kByte);
    return absl::OkStatus();
  });
  EXPECT_EQ(torch.code(), absl::StatusCode::kResourceExhausted) << torch;
  EXPECT_EQ(CatchTorch([]() -> absl::Status { throw std::bad_alloc(); }).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(CatchTorchTest, OtherErrorsAreInternalWithTheFirstLine) {
  const absl::Status status = CatchTorch([] {
    at::ones({2, 3}).mm(at::ones({2, 3}));
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("mat1 and mat2"));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("\n")));
}

}  // namespace
}  // namespace hanmo
