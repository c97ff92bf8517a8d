// The KV pages of one model on one worker: who has which, and which of them are shared. The
// worker's memory only obeys.
#ifndef HANMO_SERVER_BATCHER_PAGES_H_
#define HANMO_SERVER_BATCHER_PAGES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/batcher/prefix_cache.h"

namespace hanmo {

// The pages of one sample, in the order of its tokens. PagePool fills and empties it.
struct PageTable {
  std::vector<uint32_t> pages;
  // The published pages that hold the same tokens as the first of `pages`: these themselves, or
  // twins that another sample had published before. The sample uses the twins, too, so that those
  // who match its text find every page of it.
  std::vector<uint32_t> published;
};

struct PagePoolOptions {
  uint32_t pages = 0;        // ids are 0 to pages - 1
  uint32_t page_tokens = 0;  // 0: no text model
  // Published pages that are kept without a user, at most; 0 publishes nothing.
  uint32_t max_idle = 0;
};

// A free list, and the published pages that nobody uses: they count as free and are forgotten when
// the list is empty. A page given back may be handed out at once, even while steps that read it are
// under way: commands run in order on the worker, so the next writer comes after the last reader.
class PagePool {
 public:
  explicit PagePool(PagePoolOptions options = {});

  uint32_t total() const { return options_.pages; }
  uint32_t free() const { return static_cast<uint32_t>(free_.size()) + cache_.idle(); }
  // Of the free ones, those that are kept for their contents.
  uint32_t idle() const { return cache_.idle(); }

  // The longest run of published pages at the start of `tokens`; never all of these: the last token
  // must be run, for what follows it.
  struct Match {
    uint32_t pages = 0;
    uint32_t idle = 0;  // of them, counted in free()
  };
  Match Find(uint64_t salt, absl::Span<const uint32_t> tokens) const;
  // Gives the pages that Find found to the empty `*table`; returns their number.
  uint32_t Share(uint64_t salt, absl::Span<const uint32_t> tokens, PageTable* table);

  // Appends `count` pages to the table; false, and nothing changes, when there are not enough.
  bool Take(uint32_t count, PageTable* table);
  // Publishes the table's next page, that after `table->published`. A worker has run all its
  // `tokens`, so many as fill it.
  void Publish(uint64_t salt, absl::Span<const uint32_t> tokens, PageTable* table);
  bool publishes() const { return options_.max_idle > 0; }

  // Takes all pages of the table back and empties it.
  void Return(PageTable* table);

 private:
  void Use(uint32_t page);
  void Release(uint32_t page);

  PagePoolOptions options_;
  PrefixCache cache_;
  std::vector<uint32_t> free_;   // last is next
  std::vector<uint32_t> users_;  // by page
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_PAGES_H_
