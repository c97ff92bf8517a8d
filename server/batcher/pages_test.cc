// The page pool beside a naive model of it, and its rules one by one.
#include "server/batcher/pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>

namespace hanmo {
namespace {

constexpr uint32_t kPageTokens = 4;

using Tokens = std::vector<uint32_t>;

Tokens From(uint32_t first, uint32_t count) {
  Tokens tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

absl::Span<const uint32_t> PageOf(const Tokens& tokens, size_t page) {
  return absl::MakeConstSpan(tokens).subspan(page * kPageTokens, kPageTokens);
}

// A sample with all its whole pages published.
PageTable Write(PagePool& pool, uint64_t salt, const Tokens& tokens) {
  PageTable table;
  pool.Share(salt, tokens, &table);
  const uint32_t needed = (tokens.size() + kPageTokens - 1) / kPageTokens;
  EXPECT_TRUE(pool.Take(needed - table.pages.size(), &table));
  while ((table.published.size() + 1) * kPageTokens <= tokens.size()) {
    pool.Publish(salt, PageOf(tokens, table.published.size()), &table);
  }
  return table;
}

TEST(PagePoolTest, GivesLowIdsFirstAndTheSameAgain) {
  PagePool pool({.pages = 5, .page_tokens = kPageTokens});
  PageTable a, b;
  EXPECT_TRUE(pool.Take(2, &a));
  EXPECT_TRUE(pool.Take(2, &b));
  EXPECT_EQ(a.pages, (Tokens{0, 1}));
  EXPECT_EQ(b.pages, (Tokens{2, 3}));
  EXPECT_FALSE(pool.Take(2, &b));
  EXPECT_EQ(b.pages, (Tokens{2, 3}));
  pool.Return(&a);
  EXPECT_TRUE(a.pages.empty());
  EXPECT_EQ(pool.free(), 3u);
  EXPECT_TRUE(pool.Take(2, &b));
  EXPECT_EQ(b.pages, (Tokens{2, 3, 0, 1}));
}

TEST(PagePoolTest, WhoBeginsAlikeSharesWholePages) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 20});
  PageTable a = Write(pool, 1, From(100, 10));
  EXPECT_EQ(pool.free(), 17u);
  Tokens alike = From(100, 10);
  alike[9] = 7;  // in the third page, which is not whole
  PageTable b;
  EXPECT_EQ(pool.Share(1, alike, &b), 2u);
  EXPECT_EQ(b.pages, (Tokens{a.pages[0], a.pages[1]}));
  EXPECT_EQ(pool.free(), 17u);
  alike[5] = 7;
  EXPECT_EQ(pool.Find(1, alike).pages, 1u);
  alike[0] = 7;
  EXPECT_EQ(pool.Find(1, alike).pages, 0u);
  pool.Return(&a);
  EXPECT_EQ(pool.free(), 18u);
  pool.Return(&b);
  EXPECT_EQ(pool.free(), 20u);
  EXPECT_EQ(pool.idle(), 2u);
}

TEST(PagePoolTest, TheLastTokenIsNeverMatched) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 20});
  PageTable a = Write(pool, 1, From(100, 8));
  EXPECT_EQ(a.published.size(), 2u);
  EXPECT_EQ(pool.Find(1, From(100, 8)).pages, 1u);
  EXPECT_EQ(pool.Find(1, From(100, 9)).pages, 2u);
  EXPECT_EQ(pool.Find(1, From(100, 4)).pages, 0u);
  EXPECT_EQ(pool.Find(1, {}).pages, 0u);
}

TEST(PagePoolTest, SaltsNeverMeet) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 20});
  PageTable a = Write(pool, 1, From(100, 9));
  EXPECT_EQ(pool.Find(2, From(100, 9)).pages, 0u);
  EXPECT_EQ(pool.Find(1, From(100, 9)).pages, 2u);
}

TEST(PagePoolTest, APageIsFoundOnlyAfterItsOwnParents) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 20});
  PageTable a = Write(pool, 1, From(100, 9));
  Tokens second_first = From(104, 5);
  EXPECT_EQ(pool.Find(1, second_first).pages, 0u);
}

TEST(PagePoolTest, TwinsAreWrittenOnceAndTheirTextStaysWhole) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 20});
  // Both began before either had published anything.
  const Tokens text_a = From(100, 9);
  Tokens text_b = From(100, 13);
  PageTable a, b;
  ASSERT_TRUE(pool.Take(3, &a));
  ASSERT_TRUE(pool.Take(4, &b));
  for (size_t i = 0; i < 2; ++i) pool.Publish(1, PageOf(text_a, i), &a);
  for (size_t i = 0; i < 3; ++i) pool.Publish(1, PageOf(text_b, i), &b);
  EXPECT_EQ(b.published, (Tokens{a.pages[0], a.pages[1], b.pages[2]}));
  pool.Return(&a);
  EXPECT_EQ(pool.free(), 14u);  // b holds its four and the two twins
  EXPECT_EQ(pool.idle(), 0u);
  pool.Return(&b);
  EXPECT_EQ(pool.free(), 20u);
  EXPECT_EQ(pool.idle(), 3u);
  EXPECT_EQ(pool.Find(1, text_b).pages, 3u);
}

TEST(PagePoolTest, TheOldestPageIsForgottenFirstAndChildrenBeforeParents) {
  PagePool pool({.pages = 8, .page_tokens = kPageTokens, .max_idle = 8});
  PageTable a = Write(pool, 1, From(100, 16));
  pool.Return(&a);
  PageTable b = Write(pool, 1, From(200, 16));
  pool.Return(&b);
  EXPECT_EQ(pool.idle(), 8u);
  PageTable c;
  ASSERT_TRUE(pool.Take(3, &c));
  EXPECT_EQ(pool.Find(1, From(100, 17)).pages, 1u);
  EXPECT_EQ(pool.Find(1, From(200, 17)).pages, 4u);
  // To be asked for is not to be used; to be used is.
  PageTable d;
  EXPECT_EQ(pool.Share(1, From(100, 17), &d), 1u);
  pool.Return(&d);
  ASSERT_TRUE(pool.Take(1, &c));
  EXPECT_EQ(pool.Find(1, From(100, 17)).pages, 1u);
  EXPECT_EQ(pool.Find(1, From(200, 17)).pages, 3u);
}

TEST(PagePoolTest, KeepsNoMoreThanItsCap) {
  PagePool pool({.pages = 20, .page_tokens = kPageTokens, .max_idle = 2});
  PageTable a = Write(pool, 1, From(100, 16));
  pool.Return(&a);
  EXPECT_EQ(pool.idle(), 2u);
  EXPECT_EQ(pool.free(), 20u);
  EXPECT_EQ(pool.Find(1, From(100, 17)).pages, 2u);

  PagePool none({.pages = 20, .page_tokens = kPageTokens, .max_idle = 0});
  PageTable b;
  ASSERT_TRUE(none.Take(4, &b));
  none.Publish(1, PageOf(From(100, 16), 0), &b);
  EXPECT_TRUE(b.published.empty());
  EXPECT_EQ(none.Find(1, From(100, 17)).pages, 0u);
}

// What the pool must do, done the slow way: published texts are kept whole.
class NaivePool {
 public:
  using Text = std::pair<uint64_t, Tokens>;  // salt, all tokens up to the end of the page

  NaivePool(uint32_t pages, uint32_t max_idle) : pages_(pages), max_idle_(max_idle) {}

  Tokens Matched(uint64_t salt, const Tokens& tokens) const {
    Tokens matched;
    for (size_t end = kPageTokens; end < tokens.size(); end += kPageTokens) {
      const auto found = texts_.find({salt, Tokens(tokens.begin(), tokens.begin() + end)});
      if (found == texts_.end()) break;
      matched.push_back(found->second);
    }
    return matched;
  }
  void Use(uint32_t page) {
    if (users_[page]++ == 0)
      idle_.erase(std::remove(idle_.begin(), idle_.end(), page), idle_.end());
  }
  // `page` was handed out by the pool.
  void Take(uint32_t page) {
    ASSERT_EQ(users_[page], 0u) << "page " << page << " has a user";
    if (free() == idle_.size()) Forget();
    const bool idles = std::find(idle_.begin(), idle_.end(), page) != idle_.end();
    ASSERT_FALSE(idles) << "page " << page << " was kept, and not the oldest";
    users_[page] = 1;
  }
  // The page that stands for the text from now on.
  uint32_t Publish(const Text& text, uint32_t page) {
    const auto [found, fresh] = texts_.emplace(text, page);
    if (!fresh) Use(found->second);
    return found->second;
  }
  void Release(uint32_t page) {
    if (--users_[page] == 0 && Published(page)) idle_.push_back(page);
  }
  void Trim() {
    while (idle_.size() > max_idle_) Forget();
  }
  size_t free() const {
    return std::count_if(users_.begin(), users_.end(), [](auto& u) { return u.second == 0; }) +
           pages_ - users_.size();
  }
  size_t idle() const { return idle_.size(); }

 private:
  bool Published(uint32_t page) const {
    return std::any_of(texts_.begin(), texts_.end(), [&](auto& t) { return t.second == page; });
  }
  void Forget() {
    const uint32_t page = idle_.front();
    idle_.erase(idle_.begin());
    for (auto text = texts_.begin(); text != texts_.end(); ++text) {
      if (text->second != page) continue;
      // Nobody is kept whose parent is gone.
      for (const auto& [longer, other] : texts_) {
        const bool child =
            longer.first == text->first.first && longer.second.size() > text->first.second.size() &&
            std::equal(text->first.second.begin(), text->first.second.end(), longer.second.begin());
        ASSERT_FALSE(child) << "page " << page << " is forgotten before page " << other;
      }
      texts_.erase(text);
      return;
    }
  }

  uint32_t pages_, max_idle_;
  std::map<Text, uint32_t> texts_;
  std::map<uint32_t, uint32_t> users_;
  std::vector<uint32_t> idle_;  // oldest first
};

class PagePoolPropertyTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  struct Sample {
    uint64_t salt;
    Tokens tokens;
    PageTable table;
  };

  uint32_t Draw(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }

  // Texts over two words, so that many begin alike.
  Tokens RandomText() {
    Tokens tokens(Draw(1, 24));
    const uint32_t repeat = Draw(0, 24);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = i < repeat ? 0 : Draw(0, 1);
    return tokens;
  }

  void Begin() {
    Sample sample = {Draw(1, 2), RandomText(), {}};
    const Tokens matched = naive_->Matched(sample.salt, sample.tokens);
    const PagePool::Match match = pool_->Find(sample.salt, sample.tokens);
    ASSERT_EQ(match.pages, matched.size());
    const uint32_t missing = (sample.tokens.size() + kPageTokens - 1) / kPageTokens - match.pages;
    if (missing > pool_->free() - match.idle) return;
    ASSERT_EQ(pool_->Share(sample.salt, sample.tokens, &sample.table), matched.size());
    ASSERT_EQ(sample.table.pages, matched);
    for (uint32_t page : matched) naive_->Use(page);
    ASSERT_TRUE(pool_->Take(missing, &sample.table));
    for (size_t i = matched.size(); i < sample.table.pages.size(); ++i) {
      ASSERT_NO_FATAL_FAILURE(naive_->Take(sample.table.pages[i]));
    }
    samples_.push_back(std::move(sample));
  }

  void Publish(Sample& sample) {
    const size_t next = sample.table.published.size();
    const size_t end = (next + 1) * kPageTokens;
    if (end > sample.tokens.size()) return;
    pool_->Publish(sample.salt, PageOf(sample.tokens, next), &sample.table);
    const Tokens text(sample.tokens.begin(), sample.tokens.begin() + end);
    ASSERT_EQ(sample.table.published.size(), next + 1);
    ASSERT_EQ(sample.table.published.back(),
              naive_->Publish({sample.salt, text}, sample.table.pages[next]));
  }

  void Return(size_t index) {
    Sample& sample = samples_[index];
    const PageTable held = sample.table;
    for (size_t i = held.pages.size(); i > 0; --i) {
      if (i <= held.published.size() && held.published[i - 1] != held.pages[i - 1]) {
        naive_->Release(held.published[i - 1]);
      }
      naive_->Release(held.pages[i - 1]);
    }
    naive_->Trim();
    pool_->Return(&sample.table);
    samples_.erase(samples_.begin() + index);
  }

  std::mt19937 random_;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<NaivePool> naive_;
  std::vector<Sample> samples_;
};

TEST_P(PagePoolPropertyTest, DoesWhatTheNaivePoolDoes) {
  random_.seed(GetParam());
  const uint32_t pages = Draw(8, 40), max_idle = Draw(1, pages);
  pool_ = std::make_unique<PagePool>(
      PagePoolOptions{.pages = pages, .page_tokens = kPageTokens, .max_idle = max_idle});
  naive_ = std::make_unique<NaivePool>(pages, max_idle);
  for (int i = 0; i < 2000; ++i) {
    if (samples_.empty() || Draw(1, 3) == 1) {
      ASSERT_NO_FATAL_FAILURE(Begin());
    } else if (const size_t any = Draw(0, samples_.size() - 1); Draw(1, 4) == 1) {
      ASSERT_NO_FATAL_FAILURE(Return(any));
    } else {
      ASSERT_NO_FATAL_FAILURE(Publish(samples_[any]));
    }
    ASSERT_EQ(pool_->free(), naive_->free());
    ASSERT_EQ(pool_->idle(), naive_->idle());
  }
  while (!samples_.empty()) ASSERT_NO_FATAL_FAILURE(Return(0));
  EXPECT_EQ(pool_->free(), pages);
  EXPECT_LE(pool_->idle(), max_idle);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PagePoolPropertyTest, ::testing::Range(1u, 33u));

}  // namespace
}  // namespace hanmo
