// Pictures painted by tokens that are scored, against what transformers recorded: the tiny
// rerankers of tests/goldens/reranker beside the tiny ERNIE-ViLG, whose pictures are in their
// goldens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/testing/ernie_vilg_fixture.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

constexpr std::pair<const char*, const char*> kRerankers[] = {
    {"chinese_clip", "ChineseCLIPModel"},
    {"chinese_clip_gelu", "ChineseCLIPModel"},
    {"taiyi", "TaiyiCLIPModel"},
    {"taiyi_roberta", "BertForSequenceClassification"}};

class ErnieVilgScoresTest : public testing::ErnieVilgFixture {
 protected:
  ~ErnieVilgScoresTest() override { std::filesystem::remove_all(folder_); }

  // Makes a copy of the folder with this reranker in it.
  void Add(const std::string& name, const std::string& class_name) {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(kFolder, folder_, std::filesystem::copy_options::recursive);
    const std::string index = folder_ + "/model_index.json";
    nlohmann::json json = nlohmann::json::parse(std::ifstream(index));
    json["reranker"] = {"transformers", class_name};
    std::ofstream(index) << json;
    std::filesystem::copy(absl::StrCat("tests/goldens/reranker/", name), folder_ + "/reranker",
                          std::filesystem::copy_options::recursive);
  }
  void LoadWith(const std::string& name, const std::string& class_name) {
    Add(name, class_name);
    const absl::Status status = Load(folder_);
    ASSERT_TRUE(status.ok()) << status;
  }

  static TextJob Scored(TextJob job, std::vector<uint32_t> prompt) {
    job.score_prompt = std::move(prompt);
    return job;
  }

  const std::string folder_ = ::testing::TempDir() + "/scored_ernie_vilg";
};

TEST_F(ErnieVilgScoresTest, ScoresWhatTransformersScores) {
  for (const auto& [name, class_name] : kRerankers) {
    LoadWith(name, class_name);
    testing::Golden golden(absl::StrCat("tests/goldens/reranker/", name, "/golden.safetensors"));
    const at::Tensor expected = golden.Get("scores_4");  // texts by painted pictures
    std::vector<TextJob> jobs;
    for (int text = 0; text < 3; ++text) {
      const at::Tensor ids = golden.Get(absl::StrCat("ids_", text), at::kLong);
      for (const char* picture : {"0", "1"}) {
        jobs.push_back(Scored(Painting(picture),
                              {ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel()}));
      }
    }
    const std::vector<Outcome> outcomes = RunTogether(jobs);
    for (int64_t i = 0; i < expected.numel(); ++i) {
      ASSERT_TRUE(outcomes[i].status.ok()) << outcomes[i].status;
      ASSERT_TRUE(outcomes[i].score.has_value());
      // A few bytes of the pictures are a level off, see ErnieVilgPipelineTest.
      EXPECT_NEAR(*outcomes[i].score, expected.flatten()[i].item<float>(), 1e-4) << name << i;
    }
  }
}

TEST_F(ErnieVilgScoresTest, AScoreDependsNeitherOnCompanyNorOnADeath) {
  LoadWith("taiyi", "TaiyiCLIPModel");
  const TextJob job = Scored(Drawn(Painting("1"), 3), {2, 5, 6, 3});
  const Outcome alone = RunAlone(job);
  ASSERT_TRUE(alone.status.ok()) << alone.status;
  ASSERT_TRUE(alone.score.has_value());
  const std::vector<Outcome> together =
      RunTogether({Drawn(Painting("0"), 1), Scored(Drawn(Painting("1"), 2), {2, 9, 3}), job,
                   Caption("0"), Scored(Drawn(Painting("1"), 4), {2, 5, 6, 3})});
  EXPECT_EQ(together[2].score, alone.score);
  EXPECT_NE(together[1].score, alone.score);
  EXPECT_NE(together[4].score, alone.score);
  EXPECT_EQ(together[0].score, std::nullopt);
  EXPECT_EQ(together[3].score, std::nullopt);
  for (const size_t emitted : {size_t{7}, alone.ids.size()}) {
    Resume resume;
    resume.emitted.assign(alone.ids.begin(), alone.ids.begin() + emitted);
    const Outcome resumed = RunAlone(job, resume);
    ASSERT_TRUE(resumed.status.ok()) << resumed.status;
    EXPECT_EQ(resumed.rgb, alone.rgb);
    EXPECT_EQ(resumed.score, alone.score);
  }
}

TEST_F(ErnieVilgScoresTest, TheModelCountsAndTellsItsReranker) {
  EXPECT_FALSE(loaded_.has_reranker);
  const uint64_t before = loaded_.weight_bytes;
  LoadWith("taiyi_roberta", "BertForSequenceClassification");
  EXPECT_TRUE(loaded_.has_reranker);
  uint64_t files = 0;  // in float32, as they are served
  for (const char* file : {"model.safetensors", "vision_model/model.safetensors"}) {
    files += std::filesystem::file_size(folder_ + "/reranker/" + file);
  }
  EXPECT_GT(loaded_.weight_bytes, before + files / 2);
  EXPECT_LT(loaded_.weight_bytes, before + files);
}

TEST_F(ErnieVilgScoresTest, PromptsThatTheRerankerCannotReadAreRefused) {
  LoadWith("chinese_clip", "ChineseCLIPModel");
  EXPECT_THAT(ErrorOf(Scored(Painting("0"), std::vector<uint32_t>(33, 3))),
              HasSubstr("score_prompt: 33 tokens, 1 to 32 expected"));
  EXPECT_THAT(ErrorOf(Scored(Painting("0"), {2, 38})),
              HasSubstr("score_prompt: token 38, below 38 expected"));
}

TEST_F(ErnieVilgScoresTest, BadRerankersAreRefusedByTheirFault) {
  Add("taiyi", "CLIPModel");
  EXPECT_THAT(std::string(Load(folder_).message()), HasSubstr("reranker: \"CLIPModel\" found"));
  Add("taiyi", "TaiyiCLIPModel");
  // All bits set: no number.
  const std::string file = folder_ + "/reranker/model.safetensors";
  std::ifstream in(file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const size_t header = 8 + *reinterpret_cast<const uint64_t*>(bytes.data());
  std::fill(bytes.begin() + header, bytes.end(), '\xff');
  std::ofstream(file, std::ios::binary) << bytes;
  EXPECT_THAT(std::string(Load(folder_).message()),
              HasSubstr("reranker: scores NaN or Inf in float32"));
  std::filesystem::remove_all(folder_ + "/reranker");
  EXPECT_THAT(std::string(Load(folder_).message()), HasSubstr("reranker"));
}

}  // namespace
}  // namespace hanmo
