#include "server/telemetry/families.h"

namespace hanmo {
namespace {

using prometheus::Registry;

auto& MakeHistogram(Registry* registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
}

auto& MakeCounter(Registry* registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
}

auto& MakeGauge(Registry* registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
}

}  // namespace

MetricFamilies::MetricFamilies(Registry* registry)
    : tokenize_seconds(MakeHistogram(registry, "hanmo_tokenize_seconds",
                                     "Turning a request's texts into token ids")),
      queue_seconds(MakeHistogram(registry, "hanmo_queue_seconds",
                                  "From a request's arrival to its first step")),
      text_encode_seconds(MakeHistogram(registry, "hanmo_text_encode_seconds",
                                        "Device time of one step that encodes picture prompts")),
      prefill_seconds(MakeHistogram(registry, "hanmo_prefill_seconds",
                                    "From a text's first prefill chunk to its first token")),
      step_seconds(MakeHistogram(registry, "hanmo_step_seconds",
                                 "Device time of one denoising or text step of a batch")),
      vae_decode_seconds(MakeHistogram(registry, "hanmo_vae_decode_seconds",
                                       "Device time of one step from latents to pictures")),
      picture_encode_seconds(MakeHistogram(registry, "hanmo_picture_encode_seconds",
                                           "Encoding one picture, with the wait for a thread")),
      send_seconds(MakeHistogram(registry, "hanmo_send_seconds",
                                 "From a request's last result to the end of its call")),
      first_token_seconds(MakeHistogram(registry, "hanmo_time_to_first_token_seconds",
                                        "From a text request's arrival to its first token")),
      inter_token_seconds(
          MakeHistogram(registry, "hanmo_inter_token_seconds", "Between two tokens of a text")),
      decode_seconds(
          MakeHistogram(registry, "hanmo_decode_seconds", "From a text's first token to its last")),
      output_token_seconds(MakeHistogram(registry, "hanmo_time_per_output_token_seconds",
                                         "Mean time of a text between its tokens")),
      first_preview_seconds(MakeHistogram(registry, "hanmo_time_to_first_preview_seconds",
                                          "From a picture request's arrival to its first preview")),
      request_seconds(
          MakeHistogram(registry, "hanmo_request_seconds", "From a request's arrival to its end")),
      batch_size(MakeHistogram(registry, "hanmo_batch_size", "Samples that shared a step")),
      tick_seconds(MakeHistogram(registry, "hanmo_tick_seconds", "One tick of the batcher")),
      prompt_length(MakeHistogram(registry, "hanmo_text_prompt_tokens",
                                  "Tokens of the prompts of texts that ended well")),
      completion_length(MakeHistogram(registry, "hanmo_text_completion_tokens",
                                      "Tokens written by texts that ended well")),
      picture_pixels(
          MakeHistogram(registry, "hanmo_picture_pixels", "Pixels of each picture painted")),
      requests(MakeCounter(registry, "hanmo_requests_total", "Requests ended, by gRPC code")),
      rejections(MakeCounter(registry, "hanmo_rejected_total", "Requests refused, by reason")),
      cancelled(MakeCounter(registry, "hanmo_cancelled_total", "Requests that clients cancelled")),
      deadline_missed(MakeCounter(registry, "hanmo_deadline_missed_total",
                                  "Requests ended by their deadline, by where they were")),
      texts(MakeCounter(registry, "hanmo_texts_total", "Texts that ended well, by their end")),
      nonfinite(MakeCounter(registry, "hanmo_nonfinite_outputs_total",
                            "Samples ended because the model computed NaN or Inf")),
      worker_restarts(MakeCounter(registry, "hanmo_worker_restarts_total",
                                  "Times a worker came back after it was lost")),
      failed_steps(MakeCounter(registry, "hanmo_failed_steps_total",
                               "Steps that a worker could not do, by reason")),
      load_failures(MakeCounter(registry, "hanmo_model_load_failures_total",
                                "Times a model could not be loaded")),
      tenant_requests(MakeCounter(registry, "hanmo_tenant_requests_total",
                                  "Requests ended, by tenant and gRPC code")),
      tenant_device_seconds(MakeCounter(registry, "hanmo_tenant_device_seconds_total",
                                        "Device time of a tenant's requests, by their shares of "
                                        "the steps they rode in")),
      prompt_tokens(MakeCounter(registry, "hanmo_prompt_tokens_total", "Prompt tokens read")),
      completion_tokens(MakeCounter(registry, "hanmo_completion_tokens_total", "Tokens written")),
      pictures(MakeCounter(registry, "hanmo_pictures_total", "Pictures painted")),
      steps(MakeCounter(registry, "hanmo_steps_total", "Denoising steps done")),
      sliced_steps(MakeCounter(registry, "hanmo_sliced_steps_total",
                               "Picture steps cut into slices, so that others came between")),
      steps_redone(MakeCounter(registry, "hanmo_steps_redone_total",
                               "Denoising steps done again after a worker was lost")),
      steps_wasted(MakeCounter(registry, "hanmo_steps_wasted_total",
                               "Denoising steps done again, and those of requests that did not end "
                               "well")),
      prefix_hit_tokens(MakeCounter(registry, "hanmo_prefix_cache_hit_tokens_total",
                                    "Tokens that texts found in shared pages when they began")),
      preempted(MakeCounter(registry, "hanmo_preempted_total",
                            "Times a text gave its pages to another and was computed again")),
      draft_tokens(MakeCounter(registry, "hanmo_draft_tokens_total", "Tokens guessed and checked")),
      draft_tokens_accepted(MakeCounter(registry, "hanmo_draft_tokens_accepted_total",
                                        "Tokens written because a guess came true")),
      previews_dropped(MakeCounter(registry, "hanmo_previews_dropped_total",
                                   "Previews left out because the client or the budget was too "
                                   "slow for them")),
      device_idle_seconds(MakeCounter(registry, "hanmo_device_idle_seconds_total",
                                      "Time a worker's device stood still between two steps though "
                                      "there was work")),
      expert_wait_seconds(MakeCounter(registry, "hanmo_expert_wait_seconds_total",
                                      "Device time in which steps waited for an expert that was "
                                      "not in memory")),
      step_cost_seconds(
          MakeGauge(registry, "hanmo_step_cost_seconds",
                    "Device time of a step, as learned: of one row, and of as many as "
                    "the knee of the curve has")),
      step_cost_bytes(MakeGauge(registry, "hanmo_step_cost_bytes",
                                "Working memory of a step, as learned, for the same two sizes")),
      knee_rows(MakeGauge(registry, "hanmo_step_knee_rows",
                          "Rows of a step at the knee of the learned curve, beyond which larger "
                          "batches bring little")),
      waiting(MakeGauge(registry, "hanmo_requests_waiting", "Requests before their first step")),
      running(MakeGauge(registry, "hanmo_requests_running", "Requests between first step and end")),
      queue_limit(MakeGauge(registry, "hanmo_queue_limit_requests",
                            "Requests that may wait; one more is refused")),
      overloaded(MakeGauge(registry, "hanmo_overloaded",
                           "1 from when the queue is full until a quarter of it is free")),
      model_state(MakeGauge(registry, "hanmo_model_state", "1 for the state a model is in")),
      load_seconds(
          MakeGauge(registry, "hanmo_model_load_seconds", "Time the last load of a model took")),
      pages_used(MakeGauge(registry, "hanmo_kv_pages_used", "Key/value pages in use")),
      pages_total(MakeGauge(registry, "hanmo_kv_pages", "Key/value pages of a worker")),
      memory_used(MakeGauge(registry, "hanmo_device_memory_used_bytes",
                            "Device memory in use after the last step")),
      memory_total(MakeGauge(registry, "hanmo_device_memory_bytes", "Memory of the device")),
      worker_up(MakeGauge(registry, "hanmo_worker_up", "1 while a worker is connected")),
      build_info(MakeGauge(registry, "hanmo_build_info", "1, with the version as a label")),
      grpc_started(MakeCounter(registry, "grpc_server_started_total", "gRPC calls begun")),
      grpc_handled(MakeCounter(registry, "grpc_server_handled_total", "gRPC calls ended, by code")),
      grpc_seconds(MakeHistogram(registry, "grpc_server_handling_seconds",
                                 "From a gRPC call's begin to its status")) {}

prometheus::Histogram::BucketBoundaries RequestBuckets() {
  return {.005, .01, .025, .05, .1, .2, .3, .5,  .8,  1,   1.5, 2,    2.5, 5,
          10,   15,  20,   30,  40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}

prometheus::Histogram::BucketBoundaries TokenBuckets() {
  return {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
          .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80};
}

prometheus::Histogram::BucketBoundaries StepBuckets() {
  return {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
          .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  30, 60};
}

prometheus::Histogram::BucketBoundaries FineBuckets() {
  return {1e-6, 2.5e-6, 5e-6,   1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3,
          5e-3, 1e-2,   2.5e-2, .05,  .1,     .25,  .5,   1,      2.5,  5,    10};
}

prometheus::Histogram::BucketBoundaries SizeBuckets() {
  return {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
}

prometheus::Histogram::BucketBoundaries LengthBuckets() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4096, 8192, 16384, 32768, 65536};
}

prometheus::Histogram::BucketBoundaries PixelBuckets() {
  prometheus::Histogram::BucketBoundaries pixels;
  for (const double side : {64, 128, 256, 384, 512, 640, 768, 1024, 1536, 2048}) {
    pixels.push_back(side * side);
  }
  return pixels;
}

}  // namespace hanmo
