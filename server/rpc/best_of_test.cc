// Requests with best_of over a real socket, with the batcher and a worker in memory.
#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/rpc_fixture.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateResponse;
using hanmo::v1::GenerateStreamResponse;
using testing::Proto;

class BestOfTest : public testing::RpcFixture {};

// Of the candidates with seeds from 3 on, best first.
std::vector<uint32_t> Ranking(uint32_t candidates) {
  std::vector<uint32_t> ranking(candidates);
  std::iota(ranking.begin(), ranking.end(), 0);
  std::stable_sort(ranking.begin(), ranking.end(), [](uint32_t a, uint32_t b) {
    return testing::ScoreOf(3 + a) > testing::ScoreOf(3 + b);
  });
  return ranking;
}

TEST_F(BestOfTest, BestOfReturnsTheBestPicturesBestFirst) {
  GenerateResponse response;
  const grpc::Status status =
      Generate(R"(model: "painter" prompt: "山" picture { steps: 2 seed: 3 count: 3 best_of: 64 })",
               &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.outputs_size(), 3);
  const std::vector<uint32_t> ranking = Ranking(64);
  for (int i = 0; i < 3; ++i) {
    const auto& output = response.outputs(i);
    EXPECT_EQ(output.index(), ranking[i]);
    EXPECT_EQ(output.picture().seed(), 3 + ranking[i]);
    EXPECT_EQ(output.picture().score(), testing::ScoreOf(3 + ranking[i]));
    EXPECT_EQ(output.picture().width(), 64u);
    EXPECT_THAT(output.picture().data(), ::testing::StartsWith("\x89PNG"));
  }
  EXPECT_EQ(response.usage().pictures(), 64u);
  EXPECT_EQ(response.usage().steps(), 128u);
  ASSERT_TRUE(front_.media_pool().Keep(64 << 20)) << "nothing is kept any more";
  front_.media_pool().Forget(64 << 20);

  ASSERT_TRUE(Generate(R"(model: "painter" prompt: "山" picture { count: 2 })", &response).ok());
  EXPECT_FALSE(response.outputs(0).picture().has_score());
}

TEST_F(BestOfTest, AStreamSendsTheFilesOfTheChosenOnceAllAreScored) {
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(&context, Proto(R"(model: "painter" prompt: "山"
      picture { steps: 2 seed: 3 count: 2 best_of: 8 })"));
  GenerateStreamResponse event;
  std::set<uint32_t> stepped, sent;
  GenerateResponse final;
  while (reader->Read(&event)) {
    if (event.has_step()) {
      EXPECT_THAT(sent, ::testing::IsEmpty());
      if (event.step().step() == 2) stepped.insert(event.step().index());
    }
    if (event.has_picture()) sent.insert(event.picture().index());
    if (event.has_final()) final = event.final();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_THAT(stepped, ::testing::SizeIs(8));
  const std::vector<uint32_t> ranking = Ranking(8);
  EXPECT_THAT(sent, ::testing::UnorderedElementsAre(ranking[0], ranking[1]));
  ASSERT_EQ(final.outputs_size(), 2);
  EXPECT_EQ(final.outputs(1).index(), ranking[1]);
  EXPECT_EQ(final.outputs(1).picture().score(), testing::ScoreOf(3 + ranking[1]));
}

TEST_F(BestOfTest, ModelsTellWhetherTheyScore) {
  grpc::ClientContext context;
  hanmo::v1::DescribeModelRequest request;
  hanmo::v1::DescribeModelResponse response;
  request.set_name("painter");
  ASSERT_TRUE(models_->DescribeModel(&context, request, &response).ok());
  EXPECT_TRUE(response.picture().has_reranker());
}

}  // namespace
}  // namespace hanmo
