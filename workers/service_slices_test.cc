// Steps with a budget, over the worker's stream.
#include <memory>

#include "workers/testing/service_fixture.h"

namespace hanmo {
namespace {

class ServiceSlicesTest : public testing::ServiceFixture {};

TEST_F(ServiceSlicesTest, SuspendsAStepWhenItsBudgetHasPassedAndRunsTextsMeanwhile) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  for (uint64_t step : {2, 3, 4, 5}) {
    stream->Write(Write(step, 9));
    stream->Write(Resume(1));
  }
  // The last Resume comes too late, as the server can't know yet.
  for (uint64_t slice = 0; slice < 3; ++slice) {
    const wire::StepDone suspended = ReadStep(*stream);
    EXPECT_EQ(suspended.step(), 1u);
    EXPECT_TRUE(suspended.suspended());
    EXPECT_FALSE(suspended.already_done());
    EXPECT_EQ(suspended.rows_size(), 0);
    EXPECT_GT(suspended.device_seconds(), 0);
    EXPECT_GT(suspended.memory_used_bytes(), 0u);
    const wire::StepDone text = ReadStep(*stream);
    EXPECT_EQ(text.step(), 2 + slice);
    EXPECT_EQ(text.rows(0).tokens(0).id(), 50 + slice);
  }
  const wire::StepDone last = ReadStep(*stream);
  EXPECT_EQ(last.step(), 1u);
  EXPECT_FALSE(last.suspended());
  EXPECT_EQ(last.rows(0).steps_done(), 1u);
  EXPECT_EQ(ReadStep(*stream).step(), 5u);
  const wire::StepDone late = ReadStep(*stream);
  EXPECT_EQ(late.step(), 1u);
  EXPECT_TRUE(late.already_done());
  EXPECT_FALSE(late.suspended());
  EXPECT_EQ(late.status().code(), 0);
  EXPECT_EQ(late.rows_size(), 0);
  EXPECT_EQ(late.device_seconds(), 0);
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, AResumeWithoutABudgetRunsTheStepToItsEnd) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  stream->Write(Resume(1, 0));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  const wire::StepDone done = ReadStep(*stream);
  EXPECT_FALSE(done.suspended());
  EXPECT_EQ(done.rows(0).steps_done(), 1u);
  stream->Write(Resume(77));
  const wire::StepDone unknown = ReadStep(*stream);
  EXPECT_EQ(unknown.step(), 77u);
  EXPECT_TRUE(unknown.already_done());
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, RefusesPictureStepsWhileOneIsSuspendedAndBudgetsOfTexts) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  for (const wire::RunRequest& refused : {Denoise(2, 2), Sliced(Denoise(2, 2))}) {
    stream->Write(refused);
    const wire::StepDone done = ReadStep(*stream);
    EXPECT_EQ(done.step(), 2u);
    EXPECT_EQ(done.status().code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(done.status().message(), "step 2: step 1 is suspended");
    EXPECT_EQ(done.rows_size(), 0);
  }
  stream->Write(Sliced(Write(3, 9)));
  EXPECT_EQ(ReadStep(*stream).status().code(), grpc::StatusCode::INVALID_ARGUMENT);
  stream->Write(Resume(1, 0));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  stream->Write(Denoise(4, 2));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, SavesASuspendedSampleAsItWasBeforeTheStep) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Denoise(1, 1));
  stream->Write(Sliced(Denoise(2, 1)));
  stream->Write(Save(1));
  stream->Write(Resume(2, 0));
  stream->Write(Save(1));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  EXPECT_TRUE(ReadStep(*stream).suspended());
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.saved().steps_done(), 1u);
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 2u);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.saved().steps_done(), 2u);
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, AStepGoesOnWithoutADroppedSampleAndIsAbandonedWithoutAny) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  wire::RunRequest both = Sliced(Denoise(1, 1));
  both.mutable_step()->add_rows()->set_sample(2);
  stream->Write(both);
  stream->Write(Drop(1));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  EXPECT_TRUE(ReadStep(*stream).suspended());
  stream->Write(Drop(2));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).already_done());

  // The worker takes picture steps again, and a step of which one sample is left is finished.
  for (uint64_t picture : {3, 4}) stream->Write(Begin(picture));
  both = Sliced(Denoise(2, 3));
  both.mutable_step()->add_rows()->set_sample(4);
  stream->Write(both);
  stream->Write(Drop(3));
  stream->Write(Resume(2, 0));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  const wire::StepDone done = ReadStep(*stream);
  ASSERT_EQ(done.rows_size(), 2);
  EXPECT_EQ(done.rows(0).sample(), 3u);
  EXPECT_EQ(done.rows(0).status().code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(done.rows(1).sample(), 4u);
  EXPECT_EQ(done.rows(1).steps_done(), 1u);
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, AStepIsAbandonedWhenItsModelIsUnloadedNotForAnother) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  stream->Write(Unload(7));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.unloaded().model(), 7u);
  EXPECT_TRUE(ReadStep(*stream).suspended());
  stream->Write(Unload(0));
  stream->Write(Resume(1));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.unloaded().model(), 0u);
  EXPECT_TRUE(ReadStep(*stream).already_done());
  context.TryCancel();
}

TEST_F(ServiceSlicesTest, EndsWithASuspendedStepAndServesTheNextServer) {
  for (int server = 0; server < 2; ++server) {
    grpc::ClientContext context;
    auto stream = Open(&context);
    stream->Write(Sliced(Denoise(1, 1)));
    EXPECT_TRUE(ReadStep(*stream).suspended());
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(streams_ended_, server + 1);
  }
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  context.TryCancel();  // and then the worker is destroyed
}

}  // namespace
}  // namespace hanmo
