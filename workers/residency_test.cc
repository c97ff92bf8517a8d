#include "workers/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "workers/kernels/yield.h"

namespace hanmo {
namespace {

// Parts that take `pace` to load, by a clock that only the using thread moves: by computing, or by
// waiting, which its yield points tell.
class PacedRing final : public YieldListener {
 public:
  PacedRing(size_t parts, size_t slots, absl::Duration pace) : slots_(slots), pace_(pace) {
    residency_ = std::make_unique<Residency>(
        Residency::Options{.parts = parts,
                           .slots = slots,
                           .load = [this](size_t part) { return Load(part); },
                           .evict = [this](size_t part) { Evict(part); }});
    EXPECT_TRUE(residency_->Fill().ok());
    absl::MutexLock lock(&mu_);
    paced_ = true;
  }
  ~PacedRing() override {
    {
      absl::MutexLock lock(&mu_);
      paced_ = false;
    }
    residency_.reset();
  }

  absl::Status Use(size_t part) {
    const YieldScope scope(this);
    {
      absl::MutexLock lock(&mu_);
      pinned_.reset();
      wanted_ = part;
    }
    absl::Duration time;
    const absl::Status status = residency_->Use(part, &time);
    absl::MutexLock lock(&mu_);
    if (status.ok()) pinned_ = part;
    EXPECT_EQ(status.ok(), here_.contains(part)) << part;
    return status;
  }

  void AwaitLoads(size_t count) {
    absl::MutexLock lock(&mu_);
    awaited_loads_ = count;
    mu_.Await(absl::Condition(this, &PacedRing::has_loads));
  }

  void Compute(absl::Duration time) {
    absl::MutexLock lock(&mu_);
    clock_ += time;
    mu_.Await(absl::Condition(this, &PacedRing::idle));
  }

  bool OnYieldPoint() override {
    absl::MutexLock lock(&mu_);
    if (abandons_) return false;
    if (!loading_.has_value() || here_.contains(wanted_)) return true;
    clock_ += kTick;
    waited_ += kTick;
    mu_.Await(absl::Condition(this, &PacedRing::idle));
    return true;
  }

  void Fail(size_t part, int times) {
    absl::MutexLock lock(&mu_);
    broken_ = part;
    failures_ = times;
  }
  void Abandon(bool abandons) {
    absl::MutexLock lock(&mu_);
    abandons_ = abandons;
  }
  absl::Duration waited() {
    absl::MutexLock lock(&mu_);
    return waited_;
  }
  std::vector<size_t> loads() {
    absl::MutexLock lock(&mu_);
    return loads_;
  }

 private:
  static constexpr absl::Duration kTick = absl::Milliseconds(250);

  absl::Status Load(size_t part) {
    absl::MutexLock lock(&mu_);
    EXPECT_FALSE(here_.contains(part)) << part;
    EXPECT_LT(here_.size(), slots_) << "more parts in memory than there are slots";
    loads_.push_back(part);
    loading_ = part;
    until_ = clock_ + pace_;
    mu_.Await(absl::Condition(this, &PacedRing::loaded));
    loading_.reset();
    if (part == broken_ && failures_-- > 0) return absl::NotFoundError("gone");
    here_.insert(part);
    return absl::OkStatus();
  }
  void Evict(size_t part) {
    absl::MutexLock lock(&mu_);
    EXPECT_NE(part, pinned_) << "it is in use";
    EXPECT_EQ(here_.erase(part), 1u);
  }

  bool loaded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !paced_ || clock_ >= until_; }
  bool has_loads() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return loads_.size() >= awaited_loads_;
  }
  // Whoever should have finished by now has.
  bool idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !loading_.has_value() || clock_ < until_;
  }

  const size_t slots_;
  absl::Mutex mu_;
  bool paced_ ABSL_GUARDED_BY(mu_) = false;
  bool abandons_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration pace_ ABSL_GUARDED_BY(mu_);
  absl::Duration clock_ ABSL_GUARDED_BY(mu_), until_ ABSL_GUARDED_BY(mu_);
  absl::Duration waited_ ABSL_GUARDED_BY(mu_);
  std::set<size_t> here_ ABSL_GUARDED_BY(mu_);
  std::vector<size_t> loads_ ABSL_GUARDED_BY(mu_);
  std::optional<size_t> loading_ ABSL_GUARDED_BY(mu_);
  size_t wanted_ ABSL_GUARDED_BY(mu_) = 0;
  size_t awaited_loads_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<size_t> pinned_ ABSL_GUARDED_BY(mu_);
  std::optional<size_t> broken_ ABSL_GUARDED_BY(mu_);
  int failures_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<Residency> residency_;
};

constexpr absl::Duration kPace = absl::Seconds(4);

// Ten experts, five calls of each, as in 50 steps of ERNIE-ViLG 2.0; the share of the nine loads'
// time that the calls did not have to wait for.
double HiddenShare(size_t slots, absl::Duration call) {
  PacedRing ring(10, slots, kPace);
  for (size_t part = 0; part < 10; ++part) {
    EXPECT_TRUE(ring.Use(part).ok());
    if (slots > 1) ring.AwaitLoads(slots + part);
    for (int i = 0; i < 5; ++i) ring.Compute(call);
  }
  return 1 - absl::FDivDuration(ring.waited(), 9 * kPace);
}

TEST(ResidencyTest, LoadsTheNextPartWhileOneIsInUse) {
  EXPECT_EQ(HiddenShare(2, absl::Seconds(1)), 1);
  // Calls that are too short for that hide what they can.
  EXPECT_GE(HiddenShare(2, absl::Milliseconds(650)), 0.8);
  EXPECT_LE(HiddenShare(2, absl::Milliseconds(650)), 0.9);
}

TEST(ResidencyTest, OneSlotHidesNothing) { EXPECT_EQ(HiddenShare(1, absl::Seconds(1)), 0); }

TEST(ResidencyTest, ThePartThatIsNeededLastMakesRoom) {
  PacedRing ring(5, 3, absl::ZeroDuration());
  for (size_t part : {0, 1, 2, 3, 4}) {
    ASSERT_TRUE(ring.Use(part).ok());
    ring.AwaitLoads(3 + part);
  }
  // After the last part comes the first, for the next picture.
  EXPECT_EQ(ring.loads(), (std::vector<size_t>{0, 1, 2, 3, 4, 0, 1}));
}

TEST(ResidencyTest, PartsMayBeUsedInAnyOrder) {
  for (size_t slots = 1; slots <= 6; ++slots) {
    PacedRing ring(6, slots, absl::ZeroDuration());
    uint32_t random = 1;
    for (int i = 0; i < 300; ++i) {
      random = random * 1664525 + 1013904223;
      ASSERT_TRUE(ring.Use((random >> 16) % 6).ok());
    }
    if (slots == 6) {
      EXPECT_EQ(ring.loads().size(), 6u);
    }
  }
}

TEST(ResidencyTest, APartThatCannotBeLoadedIsTriedAgain) {
  PacedRing ring(4, 1, absl::ZeroDuration());
  ring.Fail(2, 2);
  EXPECT_EQ(ring.Use(2).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ring.Use(2).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(ring.Use(2).ok());
  EXPECT_TRUE(ring.Use(3).ok());
}

TEST(ResidencyTest, APartThatCouldNotBeLoadedAheadIsTriedOnceMoreWhenItIsNeeded) {
  PacedRing ring(4, 2, absl::ZeroDuration());
  ring.Fail(2, 1);
  ASSERT_TRUE(ring.Use(1).ok());
  ring.AwaitLoads(3);
  ring.Use(2).IgnoreError();  // it may have come while that load was about to fail
  EXPECT_TRUE(ring.Use(2).ok());
  EXPECT_TRUE(ring.Use(1).ok());
  const std::vector<size_t> loads = ring.loads();
  EXPECT_EQ(std::count(loads.begin(), loads.end(), 2), 2);
}

TEST(ResidencyTest, WhoWaitsMayBeAbandoned) {
  PacedRing ring(3, 1, kPace);
  ring.Abandon(true);
  EXPECT_THROW(ring.Use(1).IgnoreError(), Abandoned);
  ring.Abandon(false);
  EXPECT_TRUE(ring.Use(2).ok());
  EXPECT_TRUE(ring.Use(1).ok());
}

}  // namespace
}  // namespace hanmo
