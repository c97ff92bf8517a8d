#include "server/media/picture_resizer.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/media/testing/picture_goldens.h"

namespace hanmo {
namespace {

TEST(PictureResizerTest, FitsAsPillow) {
  const std::string all = testing::PictureGolden("pixels.bin");
  const nlohmann::json fits = nlohmann::json::parse(testing::PictureGolden("cases.json"))["fits"];
  ASSERT_EQ(fits.size(), 15u);
  for (const nlohmann::json& fit : fits) {
    SCOPED_TRACE(fit.dump());
    Pixels source{fit["from"][0], fit["from"][1], {}};
    source.rgb = all.substr(fit["source"], size_t{3} * source.width * source.height);
    const uint32_t width = fit["to"][0];
    const uint32_t height = fit["to"][1];
    const Pixels fitted = FitPicture(source, width, height);
    EXPECT_EQ(fitted.width, width);
    EXPECT_EQ(fitted.height, height);
    const std::string expected = all.substr(fit["pixels"], size_t{3} * width * height);
    ASSERT_EQ(fitted.rgb.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_LE(std::abs(static_cast<uint8_t>(fitted.rgb[i]) - static_cast<uint8_t>(expected[i])),
                1)
          << "byte " << i;
    }
  }
}

TEST(PictureResizerTest, WhatFitsIsLeftAsItIs) {
  Pixels noise{9, 4, {}};
  for (int i = 0; i < 108; ++i) noise.rgb.push_back(static_cast<char>(i * 37));
  EXPECT_EQ(FitPicture(noise, 9, 4).rgb, noise.rgb);
  // The middle, from the third column on.
  const Pixels middle = FitPicture(noise, 4, 4);
  EXPECT_EQ(middle.rgb.substr(0, 12), noise.rgb.substr(6, 12));
}

TEST(PictureResizerTest, OneColourStaysOneColour) {
  for (const uint8_t level : {0, 1, 127, 254, 255}) {
    const Pixels plain{100, 3, std::string(900, static_cast<char>(level))};
    for (const auto& [width, height] : {std::pair{1u, 1u}, {7u, 9u}, {200u, 50u}}) {
      const Pixels fitted = FitPicture(plain, width, height);
      EXPECT_EQ(fitted.rgb, std::string(size_t{3} * width * height, static_cast<char>(level)));
    }
  }
}

}  // namespace
}  // namespace hanmo
