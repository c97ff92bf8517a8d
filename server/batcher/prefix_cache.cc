#include "server/batcher/prefix_cache.h"

#include <algorithm>

#include "absl/hash/hash.h"

namespace hanmo {

PrefixCache::Key PrefixCache::KeyOf(uint64_t salt, uint32_t parent,
                                    absl::Span<const uint32_t> tokens) {
  return {salt, parent, absl::Hash<absl::Span<const uint32_t>>()(tokens)};
}

uint32_t PrefixCache::Find(uint64_t salt, uint32_t parent,
                           absl::Span<const uint32_t> tokens) const {
  if (by_key_.empty()) return kNone;
  const auto found = by_key_.find(KeyOf(salt, parent, tokens));
  return found != by_key_.end() && Holds(found->second, tokens) ? found->second : kNone;
}

bool PrefixCache::Holds(uint32_t page, absl::Span<const uint32_t> tokens) const {
  return std::equal(tokens.begin(), tokens.end(),
                    tokens_.begin() + static_cast<ptrdiff_t>(size_t{page} * page_tokens_));
}

uint32_t PrefixCache::Insert(uint32_t page, uint64_t salt, uint32_t parent,
                             absl::Span<const uint32_t> tokens) {
  if (nodes_.empty()) {
    nodes_.resize(pages_);
    tokens_.resize(size_t{pages_} * page_tokens_);
    by_key_.reserve(pages_);
  }
  const auto [found, fresh] = by_key_.try_emplace(KeyOf(salt, parent, tokens), page);
  if (!fresh) return Holds(found->second, tokens) ? found->second : kNone;
  nodes_[page] = {.key = found->first, .published = true};
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<ptrdiff_t>(size_t{page} * page_tokens_));
  return page;
}

void PrefixCache::Idle(uint32_t page) {
  nodes_[page].older = newest_;
  nodes_[page].newer = kNone;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = page;
  newest_ = page;
  ++idle_;
}

void PrefixCache::Use(uint32_t page) { Unlink(page); }

uint32_t PrefixCache::ForgetOldest() {
  const uint32_t page = oldest_;
  Unlink(page);
  by_key_.erase(nodes_[page].key);
  nodes_[page].published = false;
  return page;
}

void PrefixCache::Unlink(uint32_t page) {
  const Node& node = nodes_[page];
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
  --idle_;
}

}  // namespace hanmo
