#include "workers/kv_pages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "workers/kernels/text_kernels.h"

namespace hanmo {
namespace {

// KV pages unless told otherwise: full contexts for this many samples, capped by a share of the
// memory that is free. Pages take no memory before they are first written.
constexpr int64_t kDefaultSamples = 64;
constexpr uint64_t kMaxCpuKvBytes = 1 << 30;
constexpr uint64_t kFreeMemoryShare = 4;

}  // namespace

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

absl::StatusOr<int64_t> ChooseKvPages(const PipelineOptions& options, uint64_t page_bytes,
                                      int64_t context_tokens) {
  const int64_t context_pages = PagesFor(context_tokens);
  int64_t pages = options.kv_bytes / page_bytes;
  if (options.kv_bytes == 0) {
    uint64_t room = options.device->memory().free / kFreeMemoryShare;
    if (options.device->device().is_cpu()) room = std::min(room, kMaxCpuKvBytes);
    pages = std::min<int64_t>(kDefaultSamples * context_pages, room / page_bytes);
  }
  if (pages >= context_pages) return pages;
  return absl::ResourceExhaustedError(
      absl::StrCat("KV pages: room for ", pages, ", one context of ", context_tokens,
                   " tokens needs ", context_pages, " of ", page_bytes, " bytes"));
}

}  // namespace hanmo
