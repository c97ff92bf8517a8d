// The files below tests/goldens/pictures.
#ifndef HANMO_SERVER_MEDIA_TESTING_PICTURE_GOLDENS_H_
#define HANMO_SERVER_MEDIA_TESTING_PICTURE_GOLDENS_H_

#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"

namespace hanmo::testing {

inline std::string PictureGolden(const std::string& name) {
  std::ifstream stream("tests/goldens/pictures/" + name, std::ios::binary);
  EXPECT_TRUE(stream.good()) << name;
  std::stringstream bytes;
  bytes << stream.rdbuf();
  return bytes.str();
}

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_MEDIA_TESTING_PICTURE_GOLDENS_H_
