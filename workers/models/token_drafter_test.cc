#include "workers/models/token_drafter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Tokens = std::vector<uint32_t>;

TEST(TokenDrafterTest, GoesOnAsAfterTheLongestLatestMatch) {
  TokenDrafter drafter;
  // After "1 2 3 4": 5 at the start, 6 later; after "3 4" alone: 9, last of all.
  const Tokens text = {1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 6, 7, 0, 3, 4, 9, 8, 1, 2, 3, 4};
  EXPECT_THAT(drafter.Guess(text, 3, 1), ElementsAre(6, 7, 0));
}

TEST(TokenDrafterTest, ARepeatingTextIsGuessedPastItsEnd) {
  TokenDrafter drafter;
  EXPECT_THAT(drafter.Guess({1, 2, 3, 1, 2, 3, 1, 2, 3}, 5, 1), ElementsAre(1, 2, 3, 1, 2));
  EXPECT_THAT(drafter.Guess({7, 7, 7, 7, 7, 7}, 4, 1), ElementsAre(7, 7, 7, 7));
}

TEST(TokenDrafterTest, ACopyGoesOnBehindAChangedWord) {
  TokenDrafter drafter;
  Tokens text = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3, 4};
  ASSERT_THAT(drafter.Guess(text, 3, 1), ElementsAre(5, 6, 7));
  drafter.Learn(1);
  text.insert(text.end(), {5, 99});  // instead of 6
  EXPECT_THAT(drafter.Guess(text, 2, 1), ElementsAre(7, 8));
  drafter.Learn(0);
  text.push_back(98);  // instead of 7
  const Tokens guesses = drafter.Guess(text, 1, 1);
  EXPECT_THAT(guesses, ElementsAre(8));
}

TEST(TokenDrafterTest, GuessesNothingWithoutAMatchOrALimit) {
  TokenDrafter drafter;
  EXPECT_THAT(drafter.Guess({}, 4, 1), IsEmpty());
  EXPECT_THAT(drafter.Guess({1}, 4, 1), IsEmpty());
  EXPECT_THAT(drafter.Guess({1, 2, 3, 4}, 4, 1), IsEmpty());
  EXPECT_THAT(drafter.Guess({1, 2, 1, 2, 1, 2}, 0, 1), IsEmpty());
}

TEST(TokenDrafterTest, ReachesFurtherTheBetterItGuesses) {
  TokenDrafter drafter;
  const Tokens text = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4};
  const size_t at_first = drafter.Guess(text, 100, 1).size();
  EXPECT_GE(at_first, 2u);
  drafter.Learn(at_first);
  const size_t then = drafter.Guess(text, 100, 1).size();
  EXPECT_GT(then, at_first);
  drafter.Learn(0);
  const size_t in_the_end = drafter.Guess(text, 100, 1).size();
  EXPECT_LT(in_the_end, then);
  EXPECT_GE(in_the_end, 1u);
}

TEST(TokenDrafterTest, TheMoreRunsAnywayTheLessIsGuessed) {
  const Tokens text = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4};
  size_t last = 100;
  for (size_t rows : {1, 4, 16, 64}) {
    TokenDrafter drafter;
    const size_t guesses = drafter.Guess(text, 100, rows).size();
    EXPECT_LE(guesses, last);
    last = guesses;
  }
  EXPECT_LE(last, 1u);
}

TEST(TokenDrafterTest, ATextThatOnlySeemsToRepeatIsGuessedEverMoreRarely) {
  TokenDrafter drafter;
  std::mt19937 random(1);
  Tokens text;
  uint32_t guessed = 0, late = 0;
  for (int i = 0; i < 1000; ++i) {
    text.push_back(random() % 8);  // every pair of tokens has been there before
    const uint32_t guesses = drafter.Guess(text, 16, 1).size();
    guessed += guesses;
    if (i >= 500) late += guesses;
    drafter.Learn(0);
  }
  EXPECT_LE(guessed, 100u);
  EXPECT_LE(late, 30u);
  // A long match is worth a look all the same.
  std::vector<uint32_t> copy(text.end() - 300, text.end() - 250);
  text.insert(text.end(), copy.begin(), copy.end());
  uint32_t right = 0;
  for (int i = 0; i < 60; ++i) {
    const Tokens guesses = drafter.Guess(text, 4, 1);
    const uint32_t next = text[text.size() - 300];
    if (!guesses.empty() && guesses[0] == next) ++right;
    drafter.Learn(!guesses.empty() && guesses[0] == next);
    text.push_back(next);
  }
  EXPECT_GE(right, 1u);
}

}  // namespace
}  // namespace hanmo
