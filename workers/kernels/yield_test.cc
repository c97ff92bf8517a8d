#include "workers/kernels/yield.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace hanmo {
namespace {

class Listener final : public YieldListener {
 public:
  explicit Listener(std::function<bool()> heard) : heard_(std::move(heard)) {}
  bool OnYieldPoint() override { return heard_(); }

 private:
  const std::function<bool()> heard_;
};

TEST(YieldTest, IsHeardInTheScopeOnItsThreadOnly) {
  int heard = 0;
  Listener listener([&] { return ++heard > 0; });
  YieldPoint();
  EXPECT_EQ(heard, 0);
  {
    const YieldScope scope(&listener);
    YieldPoint();
    YieldPoint();
    std::thread([] { YieldPoint(); }).join();
    {
      const YieldScope nobody(nullptr);
      YieldPoint();
    }
    EXPECT_EQ(heard, 2);
  }
  YieldPoint();
  EXPECT_EQ(heard, 2);
}

TEST(YieldTest, WhatRunsAtAYieldPointIsNotHeardItself) {
  int heard = 0;
  Listener listener([&] {
    ++heard;
    YieldPoint();
    return true;
  });
  const YieldScope scope(&listener);
  YieldPoint();
  YieldPoint();
  EXPECT_EQ(heard, 2);
}

TEST(YieldTest, AnAbandonedComputationUnwindsAndTheThreadIsAsBefore) {
  int heard = 0;
  Listener listener([&] { return ++heard < 3; });
  bool unwound = false;
  {
    const YieldScope scope(&listener);
    try {
      struct Frame {
        bool* unwound;
        ~Frame() { *unwound = true; }
      } const frame{&unwound};
      while (true) YieldPoint();
    } catch (const Abandoned&) {
    }
    EXPECT_TRUE(unwound);
    EXPECT_EQ(heard, 3);
    EXPECT_THROW(YieldPoint(), Abandoned);  // the scope still listens
  }
  YieldPoint();
  EXPECT_EQ(heard, 4);
}

}  // namespace
}  // namespace hanmo
