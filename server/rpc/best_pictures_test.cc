#include "server/rpc/best_pictures.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// Of `bytes` bytes.
ScoredPicture Scored(uint32_t index, float score, size_t bytes = 10) {
  return {index, score, {1, 1, std::string(bytes, 'x')}};
}

std::vector<std::pair<uint32_t, float>> Taken(BestPictures& best, TaskPool& pool) {
  std::vector<std::pair<uint32_t, float>> taken;
  for (const ScoredPicture& picture : best.Take()) {
    pool.Forget(picture.pixels.rgb.size());
    taken.emplace_back(picture.index, picture.score);
  }
  return taken;
}

TEST(BestPicturesTest, KeepsTheBestWhateverTheyComeIn) {
  TaskPool pool(1, 1000);
  const std::vector<std::pair<uint32_t, float>> all = {{0, 0.25f}, {1, -1},   {2, 0.5f},
                                                       {3, 0.25f}, {4, 0.5f}, {5, 0}};
  for (size_t turn = 0; turn < all.size(); ++turn) {
    BestPictures best(3, &pool);
    for (size_t i = 0; i < all.size(); ++i) {
      const auto& [index, score] = all[(turn + i * 5) % all.size()];
      ASSERT_TRUE(best.Add(Scored(index, score)).ok());
    }
    // Of equal ones the earlier candidate, whichever was painted first.
    EXPECT_THAT(Taken(best, pool), ElementsAre(Pair(2, 0.5f), Pair(4, 0.5f), Pair(0, 0.25f)));
  }
}

TEST(BestPicturesTest, HoldsNoMoreThanItReturns) {
  TaskPool pool(1, 20);  // two pictures
  BestPictures best(2, &pool);
  for (uint32_t i = 0; i < 64; ++i) ASSERT_TRUE(best.Add(Scored(i, static_cast<float>(i))).ok());
  EXPECT_FALSE(pool.Keep(1));
  EXPECT_THAT(Taken(best, pool), ElementsAre(Pair(63, 63), Pair(62, 62)));
  EXPECT_TRUE(pool.Keep(20));
}

TEST(BestPicturesTest, GivesItsRoomBackAndKnowsWhenThereIsNone) {
  TaskPool pool(1, 25);
  {
    BestPictures best(4, &pool);
    ASSERT_TRUE(best.Add(Scored(0, 1)).ok());
    ASSERT_TRUE(best.Add(Scored(1, 1)).ok());
    EXPECT_EQ(best.Add(Scored(2, 1)).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(pool.Keep(25));
}

}  // namespace
}  // namespace hanmo
