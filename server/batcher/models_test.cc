// Models that come, rest and go while others run.
#include <gmock/gmock.h>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

class ModelsTest : public BatcherTest {};

TEST_F(ModelsTest, ARemovedModelEndsItsRequestsAndIsForgotten) {
  Start();
  const RequestId painting = Submit(Picture(20));
  const RequestId writing = Submit(Text(3, 5));
  Steps(3);
  bool removed = false;
  batcher_->RemoveModel(kPictures, [&] { removed = true; });
  Tick();
  EXPECT_TRUE(removed);
  EXPECT_EQ(sink(painting).code(), absl::StatusCode::kUnavailable);
  // Its steps under way come back for nobody.
  RunToIdle();
  EXPECT_EQ(sink(writing).code(), absl::StatusCode::kOk);
  const RequestId late = Submit(Picture(2));
  Tick();
  EXPECT_EQ(sink(late).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ModelsTest, AModelRestsUntilItIsWanted) {
  Start();
  const RequestId running = Submit(Picture(4));
  Steps(1);
  std::vector<bool> rested;
  int wanted = 0;
  const auto rest = [&] {
    batcher_->RestModel(kPictures, [&](bool yes) { rested.push_back(yes); }, [&] { ++wanted; });
    Tick();
  };
  rest();
  RunToIdle();
  EXPECT_EQ(sink(running).code(), absl::StatusCode::kOk);
  rest();
  EXPECT_EQ(rested, (std::vector<bool>{false, true})) << "not while it has requests";
  EXPECT_EQ(wanted, 0);
  const RequestId first = Submit(Picture(2, 1)), second = Submit(Picture(2, 2));
  Tick();
  EXPECT_EQ(wanted, 1) << "once";
  EXPECT_FALSE(sink(first).status.has_value());
  batcher_->ModelReady(0, kPictures, {});
  RunToIdle();
  EXPECT_EQ(sink(first).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(second).code(), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace hanmo::testing
