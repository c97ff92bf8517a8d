// How many KV pages a model of texts gets.
#ifndef HANMO_WORKERS_KV_PAGES_H_
#define HANMO_WORKERS_KV_PAGES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "workers/pipeline.h"

namespace hanmo {

// Pages of 16 tokens that hold so many.
int64_t PagesFor(int64_t tokens);

// What options.kv_bytes holds, or, where that is 0, full contexts for 64 samples within a share of
// the free memory. RESOURCE_EXHAUSTED when one context does not fit.
absl::StatusOr<int64_t> ChooseKvPages(const PipelineOptions& options, uint64_t page_bytes,
                                      int64_t context_tokens);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KV_PAGES_H_
