#include "server/media/picture_decoder.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/media/picture_reader.h"
#include "server/media/testing/picture_goldens.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

const nlohmann::json& Cases() {
  static const auto& cases =
      *new nlohmann::json(nlohmann::json::parse(testing::PictureGolden("cases.json")));
  return cases;
}

std::string File(const nlohmann::json& golden) {
  return testing::PictureGolden("files/" + golden["file"].get<std::string>());
}

int LargestDifference(const std::string& a, const std::string& b) {
  int largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(static_cast<uint8_t>(a[i]) - static_cast<uint8_t>(b[i])));
  }
  return largest;
}

TEST(PictureDecoderTest, ShowsWhatPillowShows) {
  const std::string all = testing::PictureGolden("pixels.bin");
  ASSERT_GE(Cases()["good"].size(), 35u);
  for (const nlohmann::json& golden : Cases()["good"]) {
    SCOPED_TRACE(golden["file"]);
    const auto pixels = DecodePicture(File(golden));
    ASSERT_TRUE(pixels.ok()) << pixels.status();
    EXPECT_EQ(pixels->width, golden["width"]);
    EXPECT_EQ(pixels->height, golden["height"]);
    const std::string expected =
        all.substr(golden["pixels"], size_t{3} * pixels->width * pixels->height);
    ASSERT_EQ(pixels->rgb.size(), expected.size());
    EXPECT_LE(LargestDifference(pixels->rgb, expected), golden["tolerance"].get<int>());
  }
}

TEST(PictureDecoderTest, RefusesWithTheReason) {
  ASSERT_GE(Cases()["bad"].size(), 20u);
  for (const nlohmann::json& golden : Cases()["bad"]) {
    SCOPED_TRACE(golden["file"]);
    const auto pixels = DecodePicture(File(golden));
    ASSERT_EQ(pixels.status().code(), absl::StatusCode::kInvalidArgument) << pixels.status();
    EXPECT_THAT(std::string(pixels.status().message()), HasSubstr(golden["error"]));
  }
  EXPECT_THAT(std::string(DecodePicture("").status().message()), HasSubstr("must not be empty"));
  const auto large = DecodePicture(std::string(kMaxPictureFileBytes + 1, 'x'));
  EXPECT_THAT(std::string(large.status().message()), HasSubstr("at most 16777216 bytes"));
}

TEST(PictureDecoderTest, NoFileThatEndsEarlyIsAPicture) {
  for (const nlohmann::json& golden : Cases()["good"]) {
    SCOPED_TRACE(golden["file"]);
    const std::string file = File(golden);
    // The last bytes may be padding, or the end mark of a JPEG that has all its rows.
    for (size_t size = 0; size + 3 < file.size(); ++size) {
      EXPECT_FALSE(DecodePicture(file.substr(0, size)).ok()) << size << " of " << file.size();
    }
  }
}

TEST(PictureDecoderTest, DamageAnywhereIsSurvived) {
  for (const nlohmann::json& golden : Cases()["good"]) {
    const std::string file = File(golden);
    for (size_t i = 0; i < file.size(); ++i) {
      std::string damaged = file;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
      const auto pixels = DecodePicture(damaged);
      if (!pixels.ok()) continue;
      EXPECT_EQ(pixels->rgb.size(), size_t{3} * pixels->width * pixels->height);
    }
  }
}

TEST(ExifTest, NonsenseTurnsNothing) {
  const std::string good("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 22);
  EXPECT_EQ(ExifOrientation(good), 6u);
  for (size_t size = 0; size < 20; ++size) EXPECT_EQ(ExifOrientation(good.substr(0, size)), 1u);
  std::string far = good;
  far[4] = far[5] = far[6] = far[7] = '\xff';
  EXPECT_EQ(ExifOrientation(far), 1u);
  std::string many = good;
  many[8] = many[9] = '\xff';
  many[10] = '\x13';
  EXPECT_EQ(ExifOrientation(many), 1u);
}

}  // namespace
}  // namespace hanmo
