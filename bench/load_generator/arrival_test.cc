#include "bench/load_generator/arrival.h"

#include <fstream>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

TEST(ArrivalTest, ReadsAPicture) {
  const auto arrival = ParseArrival(
      R"({"at_s": 1.5, "kind": "picture", "model": "m", "prompt": "山", "steps": 4, "width": 64,)"
      R"( "height": 128, "guidance": 7.5, "sampler": "ddim", "seed": 9, "phase": "x"})");
  ASSERT_TRUE(arrival.ok()) << arrival.status();
  EXPECT_EQ(arrival->at, absl::Seconds(1.5));
  EXPECT_EQ(arrival->deadline, absl::InfiniteDuration());
  EXPECT_FALSE(arrival->repeat);
  EXPECT_FALSE(arrival->streams());
  EXPECT_EQ(arrival->request.model(), "m");
  EXPECT_EQ(arrival->request.prompt(), "山");
  const hanmo::v1::PictureParameters& picture = arrival->request.picture();
  EXPECT_EQ(picture.steps(), 4u);
  EXPECT_EQ(picture.width(), 64u);
  EXPECT_EQ(picture.height(), 128u);
  EXPECT_EQ(picture.guidance(), 7.5f);
  EXPECT_EQ(picture.sampler(), "ddim");
  EXPECT_EQ(picture.seed(), 9u);
}

TEST(ArrivalTest, ReadsATextWhoseLengthTheTraceDecides) {
  const auto arrival = ParseArrival(
      R"({"kind": "text", "model": "m", "prompt_tokens": 3, "max_tokens": 7, "seed": 1,)"
      R"( "deadline_s": 2, "repeat": 1})");
  ASSERT_TRUE(arrival.ok()) << arrival.status();
  EXPECT_EQ(arrival->deadline, absl::Seconds(2));
  EXPECT_TRUE(arrival->repeat);
  EXPECT_TRUE(arrival->streams());
  EXPECT_EQ(arrival->request.token_ids().ids_size(), 3);
  EXPECT_EQ(arrival->request.text().max_tokens(), 7u);
  EXPECT_TRUE(arrival->request.text().ignore_eos());
}

TEST(ArrivalTest, ReadsACaptionOfAFile) {
  const std::string path = ::testing::TempDir() + "caption.png";
  std::ofstream(path) << "bytes";
  const auto arrival =
      ParseArrival(R"({"kind": "caption", "model": "m", "file": ")" + path + "\"}");
  ASSERT_TRUE(arrival.ok()) << arrival.status();
  EXPECT_TRUE(arrival->streams());
  EXPECT_EQ(arrival->request.parts().parts(0).picture().data(), "bytes");
}

TEST(ArrivalTest, SaysWhichKeyIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "JSON object"},
      {"[1]", "JSON object"},
      {R"({"kind": "poem"})", "kind must be picture, text or caption"},
      {R"({"kind": "text", "at_s": -1})", "at_s must be 0 to 86400"},
      {R"({"kind": "text", "max_tokens": "x"})", "max_tokens must be 0 to"},
      {R"({"kind": "picture", "prompt": 1})", "prompt must be a string"},
      {R"({"kind": "caption", "file": "/nowhere"})", "file cannot be read"},
  };
  for (const auto& [line, message] : cases) {
    EXPECT_THAT(std::string(ParseArrival(line).status().message()), HasSubstr(message)) << line;
  }
}

TEST(ArrivalTest, PromptsShareTheirPrefixAndNothingElse) {
  const auto a = PromptIds(1, 8, 64);
  const auto b = PromptIds(2, 8, 64);
  int same = 0;
  for (int i = 0; i < 64; ++i) {
    ASSERT_GE(a.ids(i), 1u);
    ASSERT_LE(a.ids(i), 4000u);
    if (i < 8) {
      EXPECT_EQ(a.ids(i), b.ids(i));
    } else {
      same += a.ids(i) == b.ids(i);
    }
  }
  EXPECT_LE(same, 2);
  EXPECT_NE(a.ids(8), b.ids(8));
  EXPECT_EQ(PromptIds(1, 8, 64).SerializeAsString(), a.SerializeAsString());
}

}  // namespace
}  // namespace hanmo
