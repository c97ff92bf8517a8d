#include "server/batcher/pages.h"

#include <cstddef>

namespace hanmo {
namespace {

// Calls `visit(page)` for each page that holds the start of `tokens`.
template <typename Visit>
uint32_t ForEachMatch(const PrefixCache& cache, uint32_t page_tokens, uint64_t salt,
                      absl::Span<const uint32_t> tokens, const Visit& visit) {
  uint32_t parent = PrefixCache::kNone;
  uint32_t pages = 0;
  for (; page_tokens > 0 && tokens.size() > page_tokens; tokens.remove_prefix(page_tokens)) {
    parent = cache.Find(salt, parent, tokens.first(page_tokens));
    if (parent == PrefixCache::kNone) break;
    visit(parent);
    ++pages;
  }
  return pages;
}

}  // namespace

PagePool::PagePool(PagePoolOptions options)
    : options_(options), cache_(options.pages, options.page_tokens), users_(options.pages) {
  free_.reserve(options.pages);
  // Low ids first: untouched pages at the end cost the worker no memory.
  for (uint32_t page = options.pages; page > 0; --page) free_.push_back(page - 1);
}

PagePool::Match PagePool::Find(uint64_t salt, absl::Span<const uint32_t> tokens) const {
  Match match;
  match.pages = ForEachMatch(cache_, options_.page_tokens, salt, tokens,
                             [&](uint32_t page) { match.idle += users_[page] == 0; });
  return match;
}

uint32_t PagePool::Share(uint64_t salt, absl::Span<const uint32_t> tokens, PageTable* table) {
  return ForEachMatch(cache_, options_.page_tokens, salt, tokens, [&](uint32_t page) {
    Use(page);
    table->pages.push_back(page);
    table->published.push_back(page);
  });
}

bool PagePool::Take(uint32_t count, PageTable* table) {
  if (count > free()) return false;
  for (; count > 0; --count) {
    uint32_t page;
    if (free_.empty()) {
      page = cache_.ForgetOldest();
    } else {
      page = free_.back();
      free_.pop_back();
    }
    users_[page] = 1;
    table->pages.push_back(page);
  }
  return true;
}

void PagePool::Publish(uint64_t salt, absl::Span<const uint32_t> tokens, PageTable* table) {
  if (!publishes()) return;
  const uint32_t page = table->pages[table->published.size()];
  const uint32_t parent = table->published.empty() ? PrefixCache::kNone : table->published.back();
  const uint32_t published = cache_.Insert(page, salt, parent, tokens);
  if (published == PrefixCache::kNone) return;
  if (published != page) Use(published);
  table->published.push_back(published);
}

void PagePool::Return(PageTable* table) {
  // Children before their parents: these are forgotten later.
  for (size_t i = table->pages.size(); i > 0; --i) {
    const uint32_t page = table->pages[i - 1];
    if (i <= table->published.size() && table->published[i - 1] != page) {
      Release(table->published[i - 1]);
    }
    Release(page);
  }
  table->pages.clear();
  table->published.clear();
  while (cache_.idle() > options_.max_idle) free_.push_back(cache_.ForgetOldest());
}

void PagePool::Use(uint32_t page) {
  if (users_[page]++ == 0) cache_.Use(page);
}

void PagePool::Release(uint32_t page) {
  if (--users_[page] > 0) return;
  if (cache_.Has(page)) {
    cache_.Idle(page);
  } else {
    free_.push_back(page);
  }
}

}  // namespace hanmo
