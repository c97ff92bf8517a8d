#include "client/picture_assembler.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

struct Piece {
  uint32_t index;
  uint64_t offset;
  uint64_t total_bytes;
  std::string data;
};

hanmo::v1::PictureChunk Chunk(const Piece& piece) {
  hanmo::v1::PictureChunk chunk;
  chunk.set_index(piece.index);
  chunk.set_offset(piece.offset);
  chunk.set_total_bytes(piece.total_bytes);
  chunk.set_data(piece.data);
  return chunk;
}

std::string Fault(const std::vector<Piece>& pieces) {
  PictureAssembler assembler(2);
  absl::Status status;
  for (const Piece& piece : pieces) status = assembler.Add(Chunk(piece));
  return std::string(status.message());
}

TEST(PictureAssemblerTest, ChunksOfSeveralPicturesMayMix) {
  PictureAssembler assembler(2);
  for (const Piece& piece :
       std::vector<Piece>{{1, 0, 5, "abc"}, {0, 0, 2, "x"}, {1, 3, 5, "de"}, {0, 1, 2, "y"}}) {
    ASSERT_TRUE(assembler.Add(Chunk(piece)).ok());
  }
  EXPECT_EQ(*assembler.Take(0), "xy");
  EXPECT_EQ(*assembler.Take(1), "abcde");
}

TEST(PictureAssemblerTest, AnUnfinishedPictureIsAnError) {
  PictureAssembler assembler(2);
  ASSERT_TRUE(assembler.Add(Chunk({0, 0, 5, "abc"})).ok());
  EXPECT_TRUE(absl::IsDataLoss(assembler.Take(0).status()));
  EXPECT_TRUE(absl::IsDataLoss(assembler.Take(1).status()));
  EXPECT_TRUE(absl::IsDataLoss(assembler.Take(2).status()));
}

TEST(PictureAssemblerTest, WrongChunksAreRefused) {
  EXPECT_THAT(Fault({{2, 0, 5, "abc"}}), HasSubstr("not asked for"));
  EXPECT_THAT(Fault({{0, 1, 5, "abc"}}), HasSubstr("out of order"));
  EXPECT_THAT(Fault({{0, 0, 5, "abc"}, {0, 0, 5, "abc"}}), HasSubstr("out of order"));
  EXPECT_THAT(Fault({{0, 0, 2, "abc"}}), HasSubstr("too long"));
  EXPECT_THAT(Fault({{0, 0, 5, "abc"}, {0, 3, 6, "def"}}), HasSubstr("another size"));
  EXPECT_THAT(Fault({{0, 0, 0, ""}}), HasSubstr("0 bytes"));
  EXPECT_THAT(Fault({{0, 0, UINT64_MAX, "abc"}}), HasSubstr("bytes"));
}

}  // namespace
}  // namespace hanmo
