#include "client/progress.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ProgressTest : public ::testing::Test {
 protected:
  ProgressOptions Options(bool terminal, uint32_t samples = 1) {
    return {.terminal = terminal, .samples = samples, .now = [this] { return now_; }};
  }
  // What was written since the last call.
  std::string Written() {
    std::string text = err_.str();
    err_.str("");
    return text;
  }

  absl::Time now_ = absl::UnixEpoch();
  std::ostringstream err_;
};

TEST_F(ProgressTest, ATerminalSeesABarThatGoesAway) {
  {
    Progress progress(&err_, Options(true));
    progress.Queued(2);
    EXPECT_EQ(Written(), "\rqueued, 2 requests ahead\x1b[K");
    progress.Step(0, 1, 20);
    EXPECT_THAT(Written(), HasSubstr("step 1 of 20\x1b[K"));
    now_ += absl::Seconds(9);
    progress.Step(0, 10, 20);
    EXPECT_EQ(Written(), "\r[===============>              ] step 10 of 20, 10 s left\x1b[K");
  }
  EXPECT_EQ(Written(), "\r\x1b[K");
}

TEST_F(ProgressTest, ABarIsNotDrawnMoreOftenThanSeen) {
  Progress progress(&err_, Options(true));
  progress.Step(0, 1, 4);
  Written();
  progress.Step(0, 2, 4);
  EXPECT_EQ(Written(), "");
  progress.Step(0, 4, 4);  // the last step always is
  EXPECT_EQ(Written(), "\r[==============================] step 4 of 4\x1b[K");
}

TEST_F(ProgressTest, NarrowTerminalsGetNoWrappedLines) {
  ProgressOptions options = Options(true);
  options.columns = 10;
  Progress progress(&err_, options);
  progress.Step(0, 1, 4);
  EXPECT_EQ(Written(), "\rstep 1 of\x1b[K");
}

TEST_F(ProgressTest, ElsewhereQuartersAreLines) {
  Progress progress(&err_, Options(false, 2));
  progress.Queued(1);
  progress.Queued(0);
  for (uint32_t step = 1; step <= 10; ++step) {
    progress.Step(0, step, 10);
    progress.Step(1, step, 10);
  }
  EXPECT_EQ(Written(),
            "queued, 1 request ahead\nstep 5 of 20\nstep 10 of 20\nstep 15 of 20\nstep 20 of 20\n");
  progress.Clear();
  EXPECT_EQ(Written(), "");
}

TEST_F(ProgressTest, SeveralPicturesShareABar) {
  Progress progress(&err_, Options(true, 2));
  progress.Step(1, 1, 10);
  EXPECT_THAT(Written(), HasSubstr("2 pictures, step 1 of 20"));
}

TEST_F(ProgressTest, QuietIsQuietAndNonsenseIsIgnored) {
  ProgressOptions options = Options(false);
  options.quiet = true;
  Progress quiet(&err_, options);
  quiet.Queued(3);
  quiet.Step(0, 4, 4);
  Progress progress(&err_, Options(false));
  progress.Step(7, 1, 4);
  progress.Step(0, 1, 0);
  EXPECT_EQ(Written(), "");
}

}  // namespace
}  // namespace hanmo
