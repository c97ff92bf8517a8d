#include "server/batcher/batcher_loop.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/batcher/clock.h"
#include "server/batcher/testing/ignoring_sink.h"

namespace hanmo {
namespace {

// Answers each step at once, on its own thread.
class QuickWorker final : public WorkerLink {
 public:
  explicit QuickWorker(Batcher* batcher) : batcher_(batcher) {}
  void Begin(SampleHandle, ModelId, const SampleJob&, hanmo::Resume) override {}
  void Run(const Step& step) override {
    StepResult result;
    result.step = step.id;
    for (const Row& row : step.rows) {
      RowResult& out = result.rows.emplace_back();
      out.sample = row.sample;
      out.tokens.push_back({1, 0, {}});
    }
    batcher_->StepDone(0, std::move(result));
  }
  void Resume(uint64_t, absl::Duration) override {}
  void Save(const std::vector<SampleHandle>&) override {}
  void Drop(const std::vector<SampleHandle>&) override {}

 private:
  Batcher* const batcher_;
};

class WaitingSink final : public testing::IgnoringSink {
 public:
  bool OnTokens(uint32_t, absl::Span<const Token> tokens) override {
    tokens_ += tokens.size();
    return true;
  }
  void OnDone(const absl::Status& status, const Usage&) override {
    status_ = status;
    thread_ = std::this_thread::get_id();
    done_.Notify();
  }

  absl::Status Await() {
    done_.WaitForNotification();
    return status_;
  }
  size_t tokens() const { return tokens_; }
  // That ended the request.
  std::thread::id thread() const { return thread_; }

 private:
  size_t tokens_ = 0;
  absl::Status status_;
  std::thread::id thread_;
  absl::Notification done_;
};

Request TextRequest(uint32_t max_tokens) {
  TextJob job;
  job.prompt = {1, 2, 3};
  job.max_tokens = max_tokens;
  Request request;
  request.samples.push_back(job);
  request.arrival = SteadyNow();
  return request;
}

ModelCapacity Capacity() {
  ModelCapacity capacity;
  capacity.page_tokens = 4;
  capacity.pages = 64;
  return capacity;
}

TEST(BatcherLoopTest, ServesManyThreads) {
  BatcherObserver observer;
  BatcherLoop loop({}, &observer);
  loop.batcher().AddWorker(0, std::make_shared<QuickWorker>(&loop.batcher()));
  loop.batcher().ModelReady(0, 0, Capacity());
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int k = 0; k < 50; ++k) {
        auto sink = std::make_shared<WaitingSink>();
        loop.batcher().Submit(TextRequest(20), sink);
        EXPECT_TRUE(sink->Await().ok());
        EXPECT_EQ(sink->tokens(), 20u);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST(BatcherLoopTest, WhoBringsAMessageToAnIdleLoopTicks) {
  BatcherObserver observer;
  BatcherLoop loop({}, &observer);
  loop.batcher().AddWorker(0, std::make_shared<QuickWorker>(&loop.batcher()));
  loop.batcher().ModelReady(0, 0, Capacity());
  auto sink = std::make_shared<WaitingSink>();
  loop.batcher().Submit(TextRequest(1), sink);
  EXPECT_TRUE(sink->Await().ok());
  EXPECT_EQ(sink->thread(), std::this_thread::get_id());
}

TEST(BatcherLoopTest, ACallIsNotKeptForEver) {
  BatcherObserver observer;
  BatcherLoop loop({}, &observer);
  loop.batcher().AddWorker(0, std::make_shared<QuickWorker>(&loop.batcher()));
  loop.batcher().ModelReady(0, 0, Capacity());
  auto sink = std::make_shared<WaitingSink>();
  // Each answer brings the next step: there is no quiet before the end.
  loop.batcher().Submit(TextRequest(100), sink);
  EXPECT_TRUE(sink->Await().ok());
  EXPECT_NE(sink->thread(), std::this_thread::get_id());
}

// Destroying the last channel waits for gRPC's callback threads, which bring messages.
TEST(BatcherLoopTest, TheLinkOfALostWorkerIsNotDestroyedByWhoBringsTheNews) {
  struct Mortal final : public WorkerLink {
    Mortal(std::thread::id* thread, absl::Notification* gone) : thread(thread), gone(gone) {}
    ~Mortal() override {
      *thread = std::this_thread::get_id();
      gone->Notify();
    }
    void Begin(SampleHandle, ModelId, const SampleJob&, hanmo::Resume) override {}
    void Run(const Step&) override {}
    void Resume(uint64_t, absl::Duration) override {}
    void Save(const std::vector<SampleHandle>&) override {}
    void Drop(const std::vector<SampleHandle>&) override {}
    std::thread::id* const thread;
    absl::Notification* const gone;
  };
  std::thread::id thread;
  absl::Notification gone;
  BatcherObserver observer;
  BatcherLoop loop({}, &observer);
  loop.batcher().AddWorker(0, std::make_shared<Mortal>(&thread, &gone));
  loop.batcher().WorkerLost(0);
  gone.WaitForNotification();
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST(BatcherLoopTest, WakesForADeadlineWithoutAMessage) {
  BatcherObserver observer;
  BatcherLoop loop({}, &observer);
  loop.batcher().AddWorker(0, std::make_shared<QuickWorker>(&loop.batcher()));
  loop.batcher().ModelReady(0, 0, Capacity());
  loop.batcher().WorkerLost(0);  // nobody will ever serve it
  Request request = TextRequest(20);
  request.deadline = SteadyNow() + absl::Milliseconds(20);
  auto sink = std::make_shared<WaitingSink>();
  loop.batcher().Submit(std::move(request), sink);
  EXPECT_TRUE(absl::IsDeadlineExceeded(sink->Await()));
}

TEST(BatcherLoopTest, EndsEveryRequestBeforeItIsGone) {
  BatcherObserver observer;
  auto sink = std::make_shared<WaitingSink>();
  {
    BatcherLoop loop({}, &observer);
    loop.batcher().AddWorker(0, std::make_shared<QuickWorker>(&loop.batcher()));
    loop.batcher().ModelReady(0, 0, Capacity());
    loop.batcher().WorkerLost(0);
    loop.batcher().Submit(TextRequest(20), sink);
  }
  EXPECT_TRUE(absl::IsUnavailable(sink->Await()));
}

}  // namespace
}  // namespace hanmo
