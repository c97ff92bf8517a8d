// Names, help texts and buckets of everything on /metrics: the one place where they are chosen.
#ifndef HANMO_SERVER_TELEMETRY_FAMILIES_H_
#define HANMO_SERVER_TELEMETRY_FAMILIES_H_

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace hanmo {

struct MetricFamilies {
  explicit MetricFamilies(prometheus::Registry* registry);

  using Counters = prometheus::Family<prometheus::Counter>&;
  using Gauges = prometheus::Family<prometheus::Gauge>&;
  using Histograms = prometheus::Family<prometheus::Histogram>&;

  // A request's way, in order.
  Histograms tokenize_seconds, queue_seconds, text_encode_seconds, prefill_seconds, step_seconds,
      vae_decode_seconds, picture_encode_seconds, send_seconds;
  Histograms first_token_seconds, inter_token_seconds, decode_seconds, output_token_seconds,
      first_preview_seconds, request_seconds, batch_size, tick_seconds;
  Histograms prompt_length, completion_length, picture_pixels;
  Counters requests, rejections, cancelled, deadline_missed, texts, nonfinite;
  Counters worker_restarts, failed_steps, load_failures;
  Counters tenant_requests, tenant_device_seconds;
  Counters prompt_tokens, completion_tokens, pictures, steps, sliced_steps, steps_redone,
      steps_wasted;
  Counters prefix_hit_tokens, preempted, draft_tokens, draft_tokens_accepted;
  Counters previews_dropped, device_idle_seconds, expert_wait_seconds;
  Gauges step_cost_seconds, step_cost_bytes, knee_rows;
  Gauges waiting, running, queue_limit, overloaded, model_state, load_seconds, pages_used,
      pages_total, memory_used, memory_total, worker_up, build_info;
  // Under the names that gRPC's own middleware has for them.
  Counters grpc_started, grpc_handled;
  Histograms grpc_seconds;
};

// Seconds. The text ones contain vLLM's, which dashboards are built on, and add what a small model
// or a fast picture needs below them.
prometheus::Histogram::BucketBoundaries RequestBuckets();  // 5 ms to 7680 s
prometheus::Histogram::BucketBoundaries TokenBuckets();    // 1 ms to 80 s
prometheus::Histogram::BucketBoundaries StepBuckets();     // 1 ms to 60 s
prometheus::Histogram::BucketBoundaries FineBuckets();     // 1 µs to 10 s
// Rows.
prometheus::Histogram::BucketBoundaries SizeBuckets();  // 1 to 256
// Tokens.
prometheus::Histogram::BucketBoundaries LengthBuckets();  // 1 to 65536
// Pixels of one picture; the squares of usual sizes.
prometheus::Histogram::BucketBoundaries PixelBuckets();  // 64 x 64 to 2048 x 2048

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_FAMILIES_H_
