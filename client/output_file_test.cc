#include "client/output_file.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A folder of its own, gone afterwards.
class OutputFileTest : public ::testing::Test {
 protected:
  OutputFileTest() {
    std::string pattern = ::testing::TempDir() + "/output_file_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~OutputFileTest() override { std::filesystem::remove_all(folder_); }

  size_t Files() const { return std::distance(std::filesystem::directory_iterator(folder_), {}); }

  std::string folder_;
};

TEST(OutputNameTest, OnePictureHasTheNameAsGiven) {
  EXPECT_EQ(OutputName("out/a.png", 1, {0, 7}), "out/a.png");
  EXPECT_EQ(OutputName("a-{index}-{seed}.png", 1, {0, 7}), "a-0-7.png");
}

TEST(OutputNameTest, SeveralPicturesGetNamesOfTheirOwn) {
  EXPECT_EQ(OutputName("out/a.png", 3, {2, 9}), "out/a-2.png");
  EXPECT_EQ(OutputName("a.b.jpeg", 3, {0, 7}), "a.b-0.jpeg");
  EXPECT_EQ(OutputName("out/{seed}.webp", 3, {2, 9}), "out/9.webp");
  EXPECT_EQ(OutputName("{index}/{index}.png", 3, {1, 9}), "1/1.png");
}

TEST(OutputNameTest, FormatFollowsTheExtension) {
  EXPECT_EQ(*FormatOf("a.png"), hanmo::v1::PICTURE_FORMAT_PNG);
  EXPECT_EQ(*FormatOf("a.b/c.JPG"), hanmo::v1::PICTURE_FORMAT_JPEG);
  EXPECT_EQ(*FormatOf("a.jpeg"), hanmo::v1::PICTURE_FORMAT_JPEG);
  EXPECT_EQ(*FormatOf("{index}.webp"), hanmo::v1::PICTURE_FORMAT_WEBP);
  EXPECT_FALSE(FormatOf("a.gif").ok());
  EXPECT_FALSE(FormatOf("png").ok());
  EXPECT_EQ(FormatName(FormatNamed("jpeg")), "jpeg");
  EXPECT_EQ(FormatName(FormatNamed("gif")), "");
}

TEST_F(OutputFileTest, AFileReplacesTheOldOneWhole) {
  const std::string path = folder_ + "/a.png";
  ASSERT_TRUE(WriteFile(path, "old and longer").ok());
  const std::string bytes("new\0\n", 5);
  ASSERT_TRUE(WriteFile(path, bytes).ok());
  EXPECT_EQ(Contents(path), bytes);
  EXPECT_EQ(Files(), 1u);
  struct stat info = {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  const mode_t mask = umask(0);
  umask(mask);
  EXPECT_EQ(info.st_mode & 0777, 0666 & ~mask);
}

TEST_F(OutputFileTest, AFailureLeavesNothingBehind) {
  const std::string path = folder_ + "/taken";
  std::filesystem::create_directory(path);
  const absl::Status status = WriteFile(path, "x");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("taken: "));
  EXPECT_EQ(Files(), 1u);
  EXPECT_TRUE(absl::IsNotFound(WriteFile(folder_ + "/no/a.png", "x")));
}

TEST_F(OutputFileTest, DevicesStayDevicesAndLinksStayLinks) {
  EXPECT_TRUE(WriteFile("/dev/null", "x").ok());
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  const std::string path = folder_ + "/link.png";
  std::filesystem::create_symlink(folder_ + "/real.png", path);
  ASSERT_TRUE(WriteFile(path, "one").ok());
  ASSERT_TRUE(WriteFile(path, "two").ok());
  EXPECT_TRUE(std::filesystem::is_symlink(path));
  EXPECT_EQ(Contents(folder_ + "/real.png"), "two");
}

TEST_F(OutputFileTest, WhatCannotBeWrittenIsKnownBefore) {
  EXPECT_TRUE(CheckWritable(folder_ + "/a.png").ok());
  EXPECT_TRUE(CheckWritable("a.png").ok());
  EXPECT_TRUE(absl::IsNotFound(CheckWritable(folder_ + "/no/a.png")));
  EXPECT_FALSE(CheckWritable(folder_).ok());
}

}  // namespace
}  // namespace hanmo
