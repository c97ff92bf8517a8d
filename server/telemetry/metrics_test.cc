#include "server/telemetry/metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

class MetricsTest : public ::testing::Test {
 protected:
  std::string Text() const {
    return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }

  Metrics metrics_{{{"poet", "text"}, {"painter", "picture"}}, 2, "1.2.3"};
};

TEST_F(MetricsTest, EveryFamilyIsThereBeforeTheFirstRequest) {
  for (const char* family :
       {"hanmo_tokenize_seconds", "hanmo_queue_seconds", "hanmo_text_encode_seconds",
        "hanmo_prefill_seconds", "hanmo_step_seconds", "hanmo_vae_decode_seconds",
        "hanmo_picture_encode_seconds", "hanmo_send_seconds", "hanmo_time_to_first_token_seconds",
        "hanmo_inter_token_seconds", "hanmo_request_seconds", "hanmo_batch_size",
        "hanmo_tick_seconds", "hanmo_decode_seconds", "hanmo_time_per_output_token_seconds",
        "hanmo_time_to_first_preview_seconds", "hanmo_text_prompt_tokens",
        "hanmo_text_completion_tokens", "hanmo_picture_pixels"}) {
    EXPECT_THAT(Text(), HasSubstr(std::string("# TYPE ") + family + " histogram"));
  }
  for (const char* family :
       {"hanmo_requests_total", "hanmo_rejected_total", "hanmo_cancelled_total",
        "hanmo_deadline_missed_total", "hanmo_worker_restarts_total", "hanmo_prompt_tokens_total",
        "hanmo_completion_tokens_total", "hanmo_pictures_total", "hanmo_steps_total",
        "hanmo_prefix_cache_hit_tokens_total", "hanmo_draft_tokens_total",
        "hanmo_draft_tokens_accepted_total", "hanmo_sliced_steps_total", "hanmo_preempted_total",
        "hanmo_texts_total", "hanmo_nonfinite_outputs_total", "hanmo_failed_steps_total",
        "hanmo_model_load_failures_total", "hanmo_tenant_requests_total"}) {
    EXPECT_THAT(Text(), HasSubstr(std::string("# TYPE ") + family + " counter"));
  }
  for (const char* family :
       {"hanmo_requests_waiting", "hanmo_requests_running", "hanmo_model_state",
        "hanmo_kv_pages_used", "hanmo_device_memory_used_bytes", "hanmo_worker_up"}) {
    EXPECT_THAT(Text(), HasSubstr(std::string("# TYPE ") + family + " gauge"));
  }
  EXPECT_THAT(Text(), HasSubstr("hanmo_build_info{version=\"1.2.3\"} 1"));
}

TEST_F(MetricsTest, RequestsAreCountedByModelTaskAndCode) {
  metrics_.RequestDone(0, absl::StatusCode::kOk, absl::Milliseconds(30));
  metrics_.RequestDone(1, absl::StatusCode::kCancelled, absl::Seconds(2));
  metrics_.RequestDone(std::nullopt, absl::StatusCode::kNotFound, absl::ZeroDuration());
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_requests_total{code=\"OK\",model=\"poet\",task=\"text\"} 1"));
  EXPECT_THAT(
      text,
      HasSubstr("hanmo_requests_total{code=\"CANCELLED\",model=\"painter\",task=\"picture\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_requests_total{code=\"NOT_FOUND\",model=\"\",task=\"\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_request_seconds_bucket{model=\"poet\",le=\"0.05\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_request_seconds_bucket{model=\"poet\",le=\"0.025\"} 0"));
}

TEST_F(MetricsTest, StepsGoToTheHistogramOfTheirKind) {
  Step step;
  step.model = 1;
  step.kind = StepKind::kVaeDecode;
  step.rows.resize(3);
  StepResult result;
  result.device_time = absl::Milliseconds(80);
  result.memory.used = 12345;
  metrics_.OnStep(1, step, result);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_vae_decode_seconds_count{model=\"painter\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_step_seconds_count{model=\"painter\"} 0"));
  EXPECT_THAT(text, HasSubstr("hanmo_batch_size_sum{model=\"painter\",step=\"vae_decode\"} 3"));
  EXPECT_THAT(text, HasSubstr("hanmo_device_memory_used_bytes{worker=\"1\"} 12345"));
}

TEST_F(MetricsTest, OnlyStepsThatAreCutCountAsSliced) {
  Step step;
  step.model = 1;
  step.kind = StepKind::kDenoise;
  metrics_.OnStep(1, step, {});
  step.budget = absl::Milliseconds(5);
  metrics_.OnStep(1, step, {});
  EXPECT_THAT(Text(), HasSubstr("hanmo_sliced_steps_total{model=\"painter\"} 1"));
}

TEST_F(MetricsTest, SharedAndGuessedTokensAreCounted) {
  metrics_.OnPrefixHit(0, 32);
  metrics_.OnPrefixHit(0, 16);
  Step step;
  step.rows.resize(2);
  StepResult result;
  result.rows.resize(2);
  result.rows[0].drafted = 4;
  result.rows[0].tokens.resize(3);
  result.rows[1].tokens.resize(1);
  metrics_.OnStep(1, step, result);
  metrics_.OnStep(1, step, result);
  EXPECT_THAT(Text(), HasSubstr("hanmo_prefix_cache_hit_tokens_total{model=\"poet\"} 48"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_draft_tokens_total{model=\"poet\"} 8"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_draft_tokens_accepted_total{model=\"poet\"} 4"));
}

TEST_F(MetricsTest, TextsEndWithTheirLengthsAndPace) {
  metrics_.OnTextEnd(0, {SampleEnd::kStop, 12, 5, absl::Seconds(2)});
  metrics_.OnTextEnd(0, {SampleEnd::kEos, 3, 1, absl::ZeroDuration()});
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_texts_total{finish_reason=\"stop\",model=\"poet\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_texts_total{finish_reason=\"eos\",model=\"poet\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_texts_total{finish_reason=\"length\",model=\"poet\"} 0"));
  EXPECT_THAT(text, HasSubstr("hanmo_text_prompt_tokens_sum{model=\"poet\"} 15"));
  EXPECT_THAT(text, HasSubstr("hanmo_text_completion_tokens_sum{model=\"poet\"} 6"));
  EXPECT_THAT(text, HasSubstr("hanmo_decode_seconds_sum{model=\"poet\"} 2"));
  // One token has no time between two.
  EXPECT_THAT(text, HasSubstr("hanmo_time_per_output_token_seconds_count{model=\"poet\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_time_per_output_token_seconds_sum{model=\"poet\"} 0.5"));
}

TEST_F(MetricsTest, FailedStepsAndNonFiniteRowsAreNoMeasurements) {
  Step step;
  step.model = 1;
  step.kind = StepKind::kDenoise;
  step.rows.resize(2);
  StepResult result;
  result.status = absl::ResourceExhaustedError("CUDA out of memory");
  metrics_.OnStep(0, step, result);
  result.status = absl::InternalError("CUDA error: an illegal memory access");
  metrics_.OnStep(0, step, result);
  metrics_.OnStep(0, step, result);
  EXPECT_THAT(Text(), HasSubstr("hanmo_failed_steps_total{reason=\"memory\",worker=\"0\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_failed_steps_total{reason=\"error\",worker=\"0\"} 2"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_step_seconds_count{model=\"painter\"} 0"));

  result.status = absl::OkStatus();
  result.rows.resize(2);
  result.rows[0].status = absl::InternalError("non-finite: the latent has NaN or Inf");
  result.rows[1].status = absl::InternalError("something else");
  metrics_.OnStep(0, step, result);
  EXPECT_THAT(Text(), HasSubstr("hanmo_nonfinite_outputs_total{model=\"painter\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_step_seconds_count{model=\"painter\"} 1"));
}

TEST_F(MetricsTest, WaitingForExpertsIsCountedByModel) {
  Step step;
  step.model = 1;
  step.kind = StepKind::kDenoise;
  step.rows.resize(1);
  StepResult result;
  result.rows.resize(1);
  result.device_time = absl::Seconds(3);
  metrics_.OnStep(0, step, result);
  EXPECT_THAT(Text(), HasSubstr("hanmo_expert_wait_seconds_total{model=\"painter\"} 0"));
  result.weights_time = absl::Milliseconds(1250);
  metrics_.OnStep(0, step, result);
  metrics_.OnStep(1, step, result);
  EXPECT_THAT(Text(), HasSubstr("hanmo_expert_wait_seconds_total{model=\"painter\"} 2.5"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_expert_wait_seconds_total{model=\"poet\"} 0"));
}

TEST_F(MetricsTest, FailedLoadsOfUnknownNamesAreCountedTogether) {
  metrics_.ModelLoadFailed("poet");
  metrics_.ModelLoadFailed("a");
  metrics_.ModelLoadFailed("b");
  EXPECT_THAT(Text(), HasSubstr("hanmo_model_load_failures_total{model=\"poet\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_model_load_failures_total{model=\"\"} 2"));
}

TEST_F(MetricsTest, PicturesAreCountedBySize) {
  metrics_.PicturePainted(1, 512 * 512);
  metrics_.PicturePainted(1, 64 * 64);
  EXPECT_THAT(Text(), HasSubstr("hanmo_picture_pixels_bucket{model=\"painter\",le=\"4096\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_picture_pixels_bucket{model=\"painter\",le=\"147456\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_picture_pixels_sum{model=\"painter\"} 266240"));
}

TEST_F(MetricsTest, TheFirstPreviewHasItsOwnTime) {
  metrics_.ObservePhase(1, FrontPhase::kFirstPreview, absl::Seconds(3));
  EXPECT_THAT(Text(), HasSubstr("hanmo_time_to_first_preview_seconds_sum{model=\"painter\"} 3"));
  EXPECT_EQ(metrics_.Totals("painter")->output().count, 0u);
}

TEST_F(MetricsTest, UsageAddsUp) {
  Usage usage;
  usage.prompt_tokens = 7;
  usage.completion_tokens = 20;
  metrics_.OnDone(0, absl::StatusCode::kOk, usage, absl::Seconds(1));
  metrics_.OnDone(0, absl::StatusCode::kCancelled, usage, absl::Seconds(1));
  EXPECT_THAT(Text(), HasSubstr("hanmo_prompt_tokens_total{model=\"poet\"} 14"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_completion_tokens_total{model=\"poet\"} 40"));
}

TEST_F(MetricsTest, TotalsAreSumsByModel) {
  metrics_.RequestDone(0, absl::StatusCode::kOk, absl::Milliseconds(30));
  metrics_.RequestDone(0, absl::StatusCode::kOk, absl::Milliseconds(20));
  metrics_.RequestDone(0, absl::StatusCode::kCancelled, absl::Milliseconds(5));
  metrics_.OnStarted(0, absl::Milliseconds(2));
  metrics_.ObservePhase(0, FrontPhase::kTokenize, absl::Microseconds(7));
  metrics_.ObservePhase(0, FrontPhase::kSend, absl::Microseconds(9));
  Step step;
  StepResult result;
  result.device_time = absl::Milliseconds(4);
  for (const size_t rows : {3, 3, 1000}) {
    step.rows.resize(rows);
    metrics_.OnStep(0, step, result);
  }
  const ModelTotals* totals = metrics_.Totals("poet");
  ASSERT_NE(totals, nullptr);
  EXPECT_EQ(totals->success().count, 2u);
  EXPECT_EQ(totals->success().nanoseconds, 50'000'000u);
  EXPECT_EQ(totals->fail().nanoseconds, 5'000'000u);
  EXPECT_EQ(totals->queue().nanoseconds, 2'000'000u);
  EXPECT_EQ(totals->input().nanoseconds, 7'000u);
  EXPECT_EQ(totals->output().nanoseconds, 9'000u);
  EXPECT_EQ(totals->steps_of(3).count, 2u);
  EXPECT_EQ(totals->steps_of(3).nanoseconds, 8'000'000u);
  EXPECT_EQ(totals->steps_of(ModelTotals::kMaxRows).count, 1u);
  EXPECT_GT(totals->last_request_ms(), 0u);
  EXPECT_EQ(metrics_.Totals("painter")->last_request_ms(), 0u);
  EXPECT_EQ(metrics_.Totals("nobody"), nullptr);
}

TEST_F(MetricsTest, OnlyAWorkerThatComesBackIsARestart) {
  metrics_.WorkerUp(0, 1 << 30);
  EXPECT_THAT(Text(), HasSubstr("hanmo_worker_restarts_total{worker=\"0\"} 0"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_device_memory_bytes{worker=\"0\"} 1073741824"));
  metrics_.WorkerLost(0);
  EXPECT_THAT(Text(), HasSubstr("hanmo_worker_up{worker=\"0\"} 0"));
  metrics_.WorkerUp(0, 1 << 30);
  EXPECT_THAT(Text(), HasSubstr("hanmo_worker_restarts_total{worker=\"0\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("hanmo_worker_up{worker=\"0\"} 1"));
}

TEST_F(MetricsTest, GaugesShowTheLastValue) {
  metrics_.OnLoad(0, 5, 3);
  metrics_.OnLoad(0, 4, 2);
  metrics_.OnPages(1, 0, 10, 100);
  metrics_.OnPages(1, 1, 10, 100);  // a picture model has no pages
  metrics_.SetModelState("poet", "loading");
  metrics_.SetModelState("poet", "ready");
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_requests_waiting{model=\"poet\"} 4"));
  EXPECT_THAT(text, HasSubstr("hanmo_requests_running{model=\"poet\"} 2"));
  EXPECT_THAT(text, HasSubstr("hanmo_kv_pages_used{model=\"poet\",worker=\"1\"} 10"));
  EXPECT_THAT(text, HasSubstr("hanmo_model_state{model=\"poet\",state=\"loading\"} 0"));
  EXPECT_THAT(text, HasSubstr("hanmo_model_state{model=\"poet\",state=\"ready\"} 1"));
}

TEST_F(MetricsTest, GaugesOfAModelAreSumsOfItsVersions) {
  metrics_.AddModel(7, {"poet", "text"});
  metrics_.OnLoad(0, 5, 3);
  metrics_.OnPages(0, 0, 10, 100);
  metrics_.OnLoad(7, 2, 1);
  metrics_.OnPages(0, 7, 1, 50);
  metrics_.OnLoad(0, 4, 0);
  std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_requests_waiting{model=\"poet\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("hanmo_requests_running{model=\"poet\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("hanmo_kv_pages_used{model=\"poet\",worker=\"0\"} 11\n"));
  EXPECT_THAT(text, HasSubstr("hanmo_kv_pages{model=\"poet\",worker=\"0\"} 150\n"));
  metrics_.RemoveModel(0);
  text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_requests_waiting{model=\"poet\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("hanmo_kv_pages{model=\"poet\",worker=\"0\"} 50\n"));
}

TEST_F(MetricsTest, OnlyCostsOfTheMostMeasuredSizesAreShown) {
  const auto cost = [](uint32_t width) {
    StepCosts::Description described;
    described.key = {1, StepKind::kDenoise, width, 64};
    described.knee = 2;
    return described;
  };
  metrics_.AddModel(7, {"painter", "picture"});
  metrics_.OnCosts(1, {cost(64), cost(128)});
  metrics_.OnCosts(7, {cost(64)});
  metrics_.OnCosts(1, {cost(256)});
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("size=\"256x64\""));
  EXPECT_THAT(text, HasSubstr("size=\"64x64\"")) << "the other version has it";
  EXPECT_THAT(text, Not(HasSubstr("size=\"128x64\"")));
}

TEST_F(MetricsTest, RejectionsAndDeadlinesNameTheirReason) {
  metrics_.OnRejected(0, Rejection::kQueueFull);
  metrics_.OnRejected(0, Rejection::kDeadline);
  metrics_.RefusedInvalid();
  metrics_.OnDeadlineMissed(0, true);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_rejected_total{reason=\"queue_full\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_rejected_total{reason=\"deadline\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_rejected_total{reason=\"invalid\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_rejected_total{reason=\"draining\"} 0"));
  EXPECT_THAT(text, HasSubstr("hanmo_deadline_missed_total{model=\"poet\",phase=\"running\"} 1"));
}

}  // namespace
}  // namespace hanmo
