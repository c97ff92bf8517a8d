// What a request is told that it used.
#include <gtest/gtest.h>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

using UsageTest = BatcherTest;

TEST_F(UsageTest, CountsQueueAndDeviceTime) {
  options_.max_running_samples = 1;
  Start();
  Submit(Text(3, 2));
  const RequestId second = Submit(Text(5, 3));
  Tick();
  now_ += absl::Seconds(4);
  RunToIdle();
  const Usage& usage = sink(second).usage;
  EXPECT_EQ(usage.queue_time, absl::Seconds(4));
  EXPECT_EQ(usage.prompt_tokens, 5u);
  EXPECT_EQ(usage.completion_tokens, 3u);
  EXPECT_EQ(usage.device_time, absl::Milliseconds(30));
  EXPECT_EQ(usage.deaths, 0u);
}

TEST_F(UsageTest, WhoRidesTogetherSharesTheDeviceTime) {
  Start();
  const RequestId one = Submit(Text(3, 2)), other = Submit(Text(3, 2));
  RunToIdle();
  EXPECT_EQ(sink(one).usage.device_time, absl::Milliseconds(10));
  EXPECT_EQ(sink(other).usage.device_time, absl::Milliseconds(10));
}

TEST_F(UsageTest, WhoRidesTogetherSharesTheMemory) {
  Start();
  workers_[0]->SetMemory(1000, 1 << 20);
  PictureJob guided = Picture(4, 1), plain = Picture(4, 2);
  guided.guidance = 5;
  plain.guidance = 1;
  const RequestId two_rows = Submit(guided), one_row = Submit(plain);
  const RequestId text = Submit(Text(3, 2));
  RunToIdle();
  // Two samples take 2,000 bytes for three rows; in the decoder each has one.
  EXPECT_EQ(sink(two_rows).usage.peak_bytes, 2000u * 2 / 3);
  EXPECT_EQ(sink(one_row).usage.peak_bytes, 1000u);
  EXPECT_EQ(sink(text).usage.peak_bytes, 1000u + 1) << "a page of one byte";
}

}  // namespace
}  // namespace hanmo::testing
