// Which KV pages hold which tokens, so that texts which begin alike share them.
#ifndef HANMO_SERVER_BATCHER_PREFIX_CACHE_H_
#define HANMO_SERVER_BATCHER_PREFIX_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace hanmo {

// A tree of published pages: each holds the keys and values of one page of tokens after those of
// its parent. Only whole pages are published, and a whole page is never written again. Texts of
// different salts never meet. A page whose tokens hash like another's is told from it by the tokens
// themselves, which are kept.
//
// Published pages without a user idle in order of age; the oldest is forgotten first. Whoever uses
// a page uses its ancestors, and lets go of the child first: so no page is forgotten before its
// children. All operations are O(1) in the number of pages.
class PrefixCache {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // Page ids are 0 to pages - 1; no memory is taken before the first Insert.
  PrefixCache(uint32_t pages, uint32_t page_tokens) : pages_(pages), page_tokens_(page_tokens) {}

  // The page of these `page_tokens` tokens after those of `parent` (kNone: the first page of a
  // text); kNone when there is none.
  uint32_t Find(uint64_t salt, uint32_t parent, absl::Span<const uint32_t> tokens) const;
  // Publishes `page`, which isn't, and returns it. When another page is published for these tokens,
  // returns that; when it has other tokens of the same hash, kNone.
  uint32_t Insert(uint32_t page, uint64_t salt, uint32_t parent, absl::Span<const uint32_t> tokens);
  bool Has(uint32_t page) const { return page < nodes_.size() && nodes_[page].published; }

  // The last user of a published page has gone; or one has come again.
  void Idle(uint32_t page);
  void Use(uint32_t page);
  uint32_t idle() const { return idle_; }
  // Forgets the page that has idled longest and returns it. There must be one.
  uint32_t ForgetOldest();

 private:
  struct Key {
    uint64_t salt;
    uint32_t parent;
    uint64_t hash;  // of the tokens

    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.salt, key.parent, key.hash);
    }
  };
  struct Node {
    Key key;
    bool published = false;
    uint32_t older = kNone;  // among the idle ones
    uint32_t newer = kNone;
  };

  static Key KeyOf(uint64_t salt, uint32_t parent, absl::Span<const uint32_t> tokens);
  bool Holds(uint32_t page, absl::Span<const uint32_t> tokens) const;
  void Unlink(uint32_t page);

  uint32_t pages_;
  uint32_t page_tokens_;
  absl::flat_hash_map<Key, uint32_t> by_key_;
  std::vector<Node> nodes_;       // by page
  std::vector<uint32_t> tokens_;  // page_tokens_ of each page
  uint32_t idle_ = 0;
  uint32_t oldest_ = kNone;
  uint32_t newest_ = kNone;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_PREFIX_CACHE_H_
