#include "client/server_view.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Scrape ReadingAt(double seconds, absl::string_view text) {
  return {absl::UnixEpoch() + absl::Seconds(seconds), *ParsePrometheusText(text)};
}

constexpr absl::string_view kBefore = R"(hanmo_build_info{version="1.2"} 1
hanmo_overloaded 0
hanmo_requests_waiting{model="poet"} 0
hanmo_requests_running{model="poet"} 0
hanmo_model_state{model="poet",state="loading"} 0
hanmo_model_state{model="poet",state="ready"} 1
hanmo_requests_total{model="poet",task="text",code="OK"} 10
hanmo_requests_total{model="poet",task="text",code="INTERNAL"} 1
hanmo_request_seconds_bucket{model="poet",le="1"} 11
hanmo_request_seconds_bucket{model="poet",le="2"} 11
hanmo_request_seconds_bucket{model="poet",le="+Inf"} 11
hanmo_completion_tokens_total{model="poet"} 100
hanmo_batch_size_sum{model="poet",step="text"} 0
hanmo_batch_size_count{model="poet",step="text"} 0
hanmo_step_seconds_sum{model="poet"} 5
hanmo_kv_pages_used{model="poet",worker="0"} 0
hanmo_kv_pages{model="poet",worker="0"} 64
hanmo_worker_up{worker="0"} 1
hanmo_worker_restarts_total{worker="0"} 0
hanmo_device_idle_seconds_total{worker="0"} 1
)";
constexpr absl::string_view kAfter = R"(hanmo_build_info{version="1.2"} 1
hanmo_overloaded 1
hanmo_requests_waiting{model="poet"} 3
hanmo_requests_running{model="poet"} 2
hanmo_model_state{model="poet",state="loading"} 0
hanmo_model_state{model="poet",state="ready"} 1
hanmo_requests_total{model="poet",task="text",code="OK"} 16
hanmo_requests_total{model="poet",task="text",code="INTERNAL"} 2
hanmo_requests_total{model="poet",task="text",code="CANCELLED"} 1
hanmo_request_seconds_bucket{model="poet",le="1"} 11
hanmo_request_seconds_bucket{model="poet",le="2"} 19
hanmo_request_seconds_bucket{model="poet",le="+Inf"} 19
hanmo_completion_tokens_total{model="poet"} 500
hanmo_batch_size_sum{model="poet",step="text"} 90
hanmo_batch_size_count{model="poet",step="text"} 20
hanmo_step_seconds_sum{model="poet"} 8
hanmo_kv_pages_used{model="poet",worker="0"} 48
hanmo_kv_pages{model="poet",worker="0"} 64
hanmo_worker_up{worker="0"} 1
hanmo_worker_restarts_total{worker="0"} 1
hanmo_device_memory_used_bytes{worker="0"} 1073741824
hanmo_device_memory_bytes{worker="0"} 4294967296
hanmo_device_idle_seconds_total{worker="0"} 2
)";

TEST(ServerViewTest, RatesAndQuantilesAreOfTheTimeBetween) {
  const Scrape before = ReadingAt(0, kBefore);
  const ServerView view = ViewServer(&before, ReadingAt(4, kAfter));
  EXPECT_EQ(view.version, "1.2");
  EXPECT_TRUE(view.overloaded);
  EXPECT_DOUBLE_EQ(*view.busy, 0.75);
  ASSERT_EQ(view.models.size(), 1u);
  const ModelView& model = view.models[0];
  EXPECT_EQ(model.task, "text");
  EXPECT_EQ(model.state, "ready");
  EXPECT_EQ(model.waiting, 3);
  EXPECT_EQ(model.running, 2);
  EXPECT_DOUBLE_EQ(*model.requests_per_s, 2);
  EXPECT_DOUBLE_EQ(*model.errors_per_s, 0.25);
  // All eight took one to two seconds.
  EXPECT_DOUBLE_EQ(*model.latency_p50_s, 1.5);
  EXPECT_DOUBLE_EQ(*model.latency_p99_s, 1.99);
  EXPECT_FALSE(model.queue_p99_s);
  EXPECT_DOUBLE_EQ(*model.tokens_per_s, 100);
  EXPECT_DOUBLE_EQ(*model.batch_mean, 4.5);
  ASSERT_EQ(view.workers.size(), 1u);
  EXPECT_TRUE(view.workers[0].up);
  EXPECT_EQ(view.workers[0].restarts, 1);
  EXPECT_DOUBLE_EQ(*view.workers[0].stalled, 0.25);

  EXPECT_EQ(ViewText(view),
            "hanmo 1.2, devices 75 % busy, OVERLOADED: the queue is full, over 4.0 s\n\n"
            "MODEL  STATE  WAITING  RUNNING  REQUESTS/S  ERRORS/S     P50     P99  QUEUE P50  "
            "QUEUE P99        OUTPUT  BATCH  KV PAGES\n"
            "poet   ready        3        2           2      0.25  1.50 s  1.99 s          -  "
            "        -  100 tokens/s   4.50     48/64\n\n"
            "WORKER  STATE  RESTARTS          MEMORY  STALLED\n"
            "0       up            1  1.0 of 4.0 GiB     25 %\n");
  const nlohmann::ordered_json json = ViewJson(view);
  EXPECT_EQ(json["models"][0]["tokens_per_s"], 100);
  EXPECT_TRUE(json["models"][0]["queue_p99_s"].is_null());
  EXPECT_EQ(json["workers"][0]["memory_bytes"], 4294967296);
}

TEST(ServerViewTest, OneReadingHasNoRates) {
  const ServerView view = ViewServer(nullptr, ReadingAt(0, kAfter));
  EXPECT_EQ(view.models[0].waiting, 3);
  EXPECT_FALSE(view.busy);
  EXPECT_FALSE(view.models[0].requests_per_s);
  EXPECT_FALSE(view.models[0].latency_p50_s);
  EXPECT_FALSE(view.models[0].batch_mean);
  EXPECT_THAT(ViewText(view), Not(HasSubstr("busy")));
}

TEST(ServerViewTest, ACounterThatBeganAnewCountsFromZero) {
  const Scrape before = ReadingAt(0, kAfter);
  const ServerView view = ViewServer(&before, ReadingAt(1, kBefore));
  EXPECT_DOUBLE_EQ(*view.models[0].tokens_per_s, 100);
  EXPECT_DOUBLE_EQ(*view.models[0].requests_per_s, 11);
}

TEST(ServerViewTest, WhatIsBeyondTheLastBoundIsTheLastBound) {
  const Scrape before = ReadingAt(0, "");
  const ServerView view = ViewServer(&before, ReadingAt(1, R"(hanmo_requests_waiting{model="m"} 0
hanmo_request_seconds_bucket{model="m",le="1"} 1
hanmo_request_seconds_bucket{model="m",le="10"} 1
hanmo_request_seconds_bucket{model="m",le="+Inf"} 4)"));
  EXPECT_DOUBLE_EQ(*view.models[0].latency_p99_s, 10);
}

TEST(ServerViewTest, NamesCannotSteerATerminal) {
  const ServerView view =
      ViewServer(nullptr, ReadingAt(0, "hanmo_requests_waiting{model=\"a\x1b[2J\\nb\"} 0"));
  const std::string text = ViewText(view);
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, HasSubstr("[2J b"));
  EXPECT_EQ(ViewJson(view)["models"][0]["name"], "a\x1b[2J\nb");
}

}  // namespace
}  // namespace hanmo
