// The KV pages of one model on one worker: who has which. The worker's memory only obeys.
#ifndef HANMO_SERVER_BATCHER_PAGES_H_
#define HANMO_SERVER_BATCHER_PAGES_H_

#include <cstdint>
#include <vector>

namespace hanmo {

// A free list. A page given back may be handed out at once, even while steps that read it are under
// way: commands run in order on the worker, so the next writer comes after the last reader.
class PagePool {
 public:
  explicit PagePool(uint32_t pages = 0) : total_(pages) {
    free_.reserve(pages);
    // Low ids first: untouched pages at the end cost the worker no memory.
    for (uint32_t page = pages; page > 0; --page) free_.push_back(page - 1);
  }

  uint32_t total() const { return total_; }
  uint32_t free() const { return static_cast<uint32_t>(free_.size()); }

  // Appends `count` pages to `*pages`; false, and nothing changes, when there are not enough.
  bool Take(uint32_t count, std::vector<uint32_t>* pages) {
    if (count > free_.size()) return false;
    pages->insert(pages->end(), free_.rbegin(), free_.rbegin() + count);
    free_.resize(free_.size() - count);
    return true;
  }

  // Takes all of `*pages` back and empties it.
  void Return(std::vector<uint32_t>* pages) {
    free_.insert(free_.end(), pages->rbegin(), pages->rend());
    pages->clear();
  }

 private:
  uint32_t total_;
  std::vector<uint32_t> free_;  // last is next
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_PAGES_H_
