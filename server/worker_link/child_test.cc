#include "server/worker_link/child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

namespace hanmo {
namespace {

TEST(ChildTest, SaysHowItEnded) {
  auto child = Child::Spawn("/bin/sh", {"-c", "exit 7"});
  ASSERT_TRUE(child.ok());
  EXPECT_EQ((*child)->Wait(), "exit code 7");
  EXPECT_EQ(Child::Spawn("/nonexistent", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST(ChildTest, DefaultsFillTheEnvironmentButChangeNothingInIt) {
  setenv("HANMO_TEST_SET", "mine", 1);
  auto child = Child::Spawn("/bin/sh", {"-c", "test $HANMO_TEST_SET-$HANMO_TEST_UNSET = mine-b"},
                            {"HANMO_TEST_SET=a", "HANMO_TEST_UNSET=b"});
  ASSERT_TRUE(child.ok());
  EXPECT_EQ((*child)->Wait(), "exit code 0");
}

TEST(ChildTest, InheritsTheSocketAndNothingElse) {
  const int stray = open("/dev/null", O_RDONLY);  // not close-on-exec
  // ls has the folder it lists as its descriptor 4.
  auto child =
      Child::Spawn("/bin/sh", {"-c", "test \"$(ls /proc/self/fd | tr '\\n' ' ')\" = '0 1 2 3 4 '"});
  ASSERT_TRUE(child.ok());
  EXPECT_EQ((*child)->Wait(), "exit code 0");
  close(stray);
}

}  // namespace
}  // namespace hanmo
