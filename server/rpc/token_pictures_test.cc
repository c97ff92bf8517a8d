#include "server/rpc/token_pictures.h"

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "server/media/picture_decoder.h"
#include "server/media/picture_resizer.h"
#include "server/media/testing/picture_goldens.h"
#include "server/rpc/testing/test_models.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class TokenPicturesTest : public ::testing::Test {
 protected:
  TokenPicturesTest() {
    std::vector<Model> list;
    list.push_back(testing::Scribe(0, "scribe"));
    list.push_back(testing::Painter(1, "painter"));
    models_ = std::make_unique<ModelTable>(std::move(list));
  }

  // From text format, with the picture as the first part where there is one.
  static GenerateRequest Proto(const std::string& text, const std::string& file = "") {
    GenerateRequest proto;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
    if (!file.empty()) {
      proto.mutable_parts()->mutable_parts(0)->mutable_picture()->set_data(
          testing::PictureGolden("files/" + file));
    }
    return proto;
  }

  absl::StatusOr<GenerationPlan> Plan(const GenerateRequest& proto) {
    auto plan = PlanFromProto(proto, *models_);
    if (!plan.ok()) return plan;
    if (plan->caption) {
      if (auto status = ReadPicture(proto, &*plan); !status.ok()) return status;
    }
    if (auto status = SetPrompts(proto, &*plan); !status.ok()) return status;
    return plan;
  }
  std::string Error(const std::string& text, const std::string& file = "") {
    const auto plan = Plan(Proto(text, file));
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << plan.status();
    return std::string(plan.status().message());
  }

  std::unique_ptr<ModelTable> models_;
};

constexpr char kPaint[] = R"(model: "scribe" prompt: "山水 a" )";
constexpr char kCaption[] = R"(model: "scribe" parts { parts { picture { } } } )";
constexpr char kBegun[] =
    R"(model: "scribe" parts { parts { picture { } } parts { text: "山 水" } } )";

TEST_F(TokenPicturesTest, WordsAreTheSourceOfAPicture) {
  const auto plan = Plan(Proto(absl::StrCat(kPaint, "picture { count: 3 seed: 7 }")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->paints);
  EXPECT_EQ(plan->steps_per_event, 2u);
  EXPECT_EQ(plan->padding, 11u);
  ASSERT_THAT(plan->request.samples, SizeIs(3));
  const auto& job = std::get<TextJob>(plan->request.samples[2]);
  EXPECT_THAT(job.prompt, ElementsAre(2, 5, 6, 10, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 36));
  EXPECT_EQ(job.source_tokens, 5u);
  EXPECT_EQ(job.max_tokens, 4u);
  EXPECT_EQ(job.paint_width, 16u);
  EXPECT_EQ(job.paint_height, 16u);
  EXPECT_EQ(job.sampling.seed, 9u);
  EXPECT_EQ(job.sampling.temperature, 1);
  EXPECT_EQ(job.sampling.top_k, 5u);
  EXPECT_THAT(job.stop_token_ids, SizeIs(0));
}

TEST_F(TokenPicturesTest, APictureMayAskForItsSamplingAndItsOnlySize) {
  const auto plan = Plan(Proto(absl::StrCat(
      kPaint, "picture { width: 16 height: 16 temperature: 0.5 top_k: 0 top_p: 0.25 }")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& job = std::get<TextJob>(plan->request.samples[0]);
  EXPECT_EQ(job.sampling.temperature, 0.5f);
  EXPECT_EQ(job.sampling.top_k, 0u);
  EXPECT_EQ(job.sampling.top_p, 0.25f);
}

TEST_F(TokenPicturesTest, TokenIdsArePaintedAsTheyAre) {
  const auto plan = Plan(Proto(R"(model: "scribe" token_ids { ids: [2, 9, 3] })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& job = std::get<TextJob>(plan->request.samples[0]);
  EXPECT_EQ(job.source_tokens, 3u);
  EXPECT_EQ(job.prompt[1], 9u);
  EXPECT_THAT(Error(R"(model: "scribe" token_ids { ids: 38 })"),
              HasSubstr("token_ids.ids[0]: must be below the vocabulary size 38"));
}

TEST_F(TokenPicturesTest, APromptMayBeAsLongAsTheModelReads) {
  const auto letters = [&](int count) {
    std::string prompt = R"(model: "scribe" prompt: ")";
    for (int i = 0; i < count; ++i) prompt += "a ";
    return prompt + "\"";
  };
  const auto plan = Plan(Proto(letters(18)));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(std::get<TextJob>(plan->request.samples[0]).source_tokens, 20u);
  EXPECT_EQ(std::get<TextJob>(plan->request.samples[0]).prompt.size(), 33u);
  EXPECT_EQ(Error(letters(19)), "prompt: must be at most 20 tokens for this model, got 21");
}

TEST_F(TokenPicturesTest, CandidatesAreScoredAgainstTheWords) {
  EXPECT_THAT(Error(absl::StrCat(kPaint, "picture { best_of: 4 }")), HasSubstr("has no reranker"));
  std::vector<Model> list;
  list.push_back(testing::Scribe(0, "scribe"));
  list.back().spec.picture.reranker_tokens = 4;
  models_ = std::make_unique<ModelTable>(std::move(list));
  const auto plan = Plan(Proto(absl::StrCat(kPaint, "picture { best_of: 4 count: 2 }")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->chosen, 2u);
  ASSERT_THAT(plan->request.samples, SizeIs(4));
  EXPECT_THAT(std::get<TextJob>(plan->request.samples[3]).score_prompt, ElementsAre(2, 5, 6, 3));
}

TEST_F(TokenPicturesTest, WhatBelongsToDenoisingIsRefused) {
  for (const char* field : {"negative_prompt: \"a\"", "steps: 4", "guidance: 1",
                            "sampler: \"ddim\"", "min_steps: 1", "preview_every_steps: 1"}) {
    const std::string name = std::string(field).substr(0, std::string(field).find(':'));
    EXPECT_EQ(Error(absl::StrCat(kPaint, "picture { ", field, " }")),
              absl::StrCat("picture.", name, ": must be absent: this model paints by tokens"));
  }
  for (const char* field : {"temperature: 1", "top_k: 4", "top_p: 0.5"}) {
    EXPECT_THAT(Error(absl::StrCat(R"(model: "painter" prompt: "山" picture { )", field, " }")),
                HasSubstr("must be absent: this model does not paint by tokens"));
  }
  EXPECT_THAT(
      Error(absl::StrCat(kPaint, "picture { width: 32 }")),
      HasSubstr("picture.width: must be 16: this model paints 16 x 16 pixels only, got 32"));
  EXPECT_THAT(Error(absl::StrCat(kPaint, "picture { temperature: 101 }")),
              HasSubstr("picture.temperature: must be in [0, 100]"));
  EXPECT_THAT(Error(absl::StrCat(kPaint, "picture { top_p: 0 }")), HasSubstr("picture.top_p"));
  EXPECT_THAT(Error(absl::StrCat(kPaint, "picture { count: 17 }")), HasSubstr("picture.count"));
  EXPECT_THAT(Error(absl::StrCat(kPaint, "text { }")), HasSubstr("text: words are painted"));
}

TEST_F(TokenPicturesTest, APictureIsTheSourceOfATextAboutIt) {
  const auto plan =
      Plan(Proto(absl::StrCat(kBegun, "text { n: 2 seed: 3 logprobs: 1 }"), "turned6.png"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->paints);
  EXPECT_EQ(plan->padding, 12u);
  EXPECT_THAT(plan->begun, ElementsAre(5, 6));
  ASSERT_THAT(plan->request.samples, SizeIs(2));
  const auto& job = std::get<TextJob>(plan->request.samples[1]);
  ASSERT_THAT(job.prompt, SizeIs(19));
  EXPECT_THAT(std::vector<uint32_t>(job.prompt.begin(), job.prompt.begin() + 4), Each(38));
  EXPECT_EQ(job.prompt[4], 0u);
  EXPECT_EQ(job.prompt[16], 37u);
  EXPECT_EQ(job.prompt[17], 5u);
  EXPECT_EQ(job.source_tokens, 4u);
  EXPECT_EQ(job.max_tokens, 18u);
  EXPECT_EQ(job.sampling.seed, 4u);
  EXPECT_THAT(job.stop_token_ids, ElementsAre(3));
  EXPECT_FALSE(job.paints());
  const Pixels whole = *DecodePicture(testing::PictureGolden("files/turned6.png"));
  EXPECT_EQ(*job.picture.rgb, FitPicture(whole, 16, 16).rgb);
  EXPECT_EQ(job.picture.width, 16u);
  // One copy serves all.
  EXPECT_EQ(job.picture.rgb, std::get<TextJob>(plan->request.samples[0]).picture.rgb);
}

TEST_F(TokenPicturesTest, ATextAboutAPictureIsBoundedByItsModel) {
  EXPECT_THAT(Error(absl::StrCat(kBegun, "text { max_tokens: 19 }"), "rgb.png"),
              HasSubstr("text.max_tokens: must be 1 to 18 (20 less the prompt's 2), got 19"));
  auto proto = Proto(kBegun, "rgb.png");
  std::string words;
  for (int i = 0; i < 20; ++i) words += "a ";
  proto.mutable_parts()->mutable_parts(1)->set_text(words);
  EXPECT_EQ(Plan(proto).status().message(),
            "parts.parts[1].text: must be at most 19 tokens for this model, got 20");
  EXPECT_THAT(Error(absl::StrCat(kCaption, "picture { }"), "rgb.png"),
              HasSubstr("picture: a picture is made from words; use text"));
}

TEST_F(TokenPicturesTest, APictureComesFirstAndAlone) {
  const char* kOne = "parts.parts: must be one picture, and after it at most one text";
  EXPECT_THAT(Error(R"(model: "scribe" parts { parts { picture { } } parts { picture { } } })"),
              HasSubstr(kOne));
  EXPECT_THAT(Error(R"(model: "scribe" parts { parts { text: "a" } parts { picture { } } })"),
              HasSubstr(kOne));
  EXPECT_THAT(Error(R"(model: "scribe" parts { parts { picture { } } parts { text: "a" }
                                               parts { text: "b" } })"),
              HasSubstr(kOne));
  EXPECT_THAT(Error(R"(model: "scribe" parts { parts { picture { } } parts { } })"),
              HasSubstr(kOne));
  EXPECT_THAT(Error(R"(model: "painter" parts { parts { picture { } } })"),
              HasSubstr("this model does not read pictures"));
  // Words alone are painted.
  EXPECT_TRUE(Plan(Proto(R"(model: "scribe" parts { parts { text: "山" } })"))->paints);
}

TEST_F(TokenPicturesTest, AFileThatIsNoGoodIsToldByItsField) {
  EXPECT_EQ(Error(kCaption), "parts.parts[0].picture.data: must not be empty");
  EXPECT_EQ(Error(kCaption, "bomb.png"),
            "parts.parts[0].picture.data: must be at most 4096 x 4096 pixels, got 20000 x 20000");
  EXPECT_EQ(Error(kCaption, "text.jpg"),
            "parts.parts[0].picture.data: must be a PNG, JPEG or WebP file");
}

}  // namespace
}  // namespace hanmo
