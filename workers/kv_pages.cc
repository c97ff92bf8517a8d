#include "workers/kv_pages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "workers/kernels/text_kernels.h"

namespace hanmo {
namespace {

// KV pages unless told otherwise: full contexts for this many samples, capped by a share of the
// memory that is free, which one long context may exceed. Pages take no memory before they are
// first written.
constexpr int64_t kDefaultSamples = 64;
constexpr uint64_t kMaxCpuKvBytes = 1 << 30;
constexpr uint64_t kFreeMemoryShare = 4;
constexpr uint64_t kContextMemoryShare = 2;

}  // namespace

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

absl::StatusOr<int64_t> ChooseKvPages(const PipelineOptions& options, uint64_t page_bytes,
                                      int64_t context_tokens) {
  const int64_t context_pages = PagesFor(context_tokens);
  int64_t pages = options.kv_bytes / page_bytes;
  if (options.kv_bytes == 0) {
    const uint64_t free = options.device->memory().free;
    uint64_t room = free / kFreeMemoryShare;
    if (options.device->device().is_cpu()) room = std::min(room, kMaxCpuKvBytes);
    room = std::max(room, std::min(context_pages * page_bytes, free / kContextMemoryShare));
    pages = std::min<int64_t>(kDefaultSamples * context_pages, room / page_bytes);
  }
  if (pages >= context_pages) return pages;
  return absl::ResourceExhaustedError(
      absl::StrCat("KV pages: room for ", pages, ", one context of ", context_tokens,
                   " tokens needs ", context_pages, " of ", page_bytes,
                   " bytes; a smaller context or more memory for them is ", "needed"));
}

}  // namespace hanmo
