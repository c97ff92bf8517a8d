#include "client/picture_assembler.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace hanmo {

absl::Status PictureAssembler::Add(hanmo::v1::PictureChunk chunk) {
  const auto torn = [&chunk](absl::string_view how) {
    return absl::DataLossError(absl::StrCat("chunk of picture ", chunk.index(), " ", how));
  };
  if (chunk.index() >= files_.size()) return torn("that was not asked for");
  if (chunk.total_bytes() == 0 || chunk.total_bytes() > kMaxPictureBytes) {
    return torn(absl::StrCat("of a file of ", chunk.total_bytes(), " bytes"));
  }
  File& file = files_[chunk.index()];
  if (file.total_bytes != 0 && file.total_bytes != chunk.total_bytes()) {
    return torn("states another size than the one before");
  }
  if (chunk.offset() != file.bytes.size()) return torn("is out of order");
  if (chunk.data().size() > chunk.total_bytes() - chunk.offset()) return torn("is too long");
  file.total_bytes = chunk.total_bytes();
  file.bytes.append(chunk.data());
  return absl::OkStatus();
}

absl::StatusOr<std::string> PictureAssembler::Take(uint32_t index) {
  if (index >= files_.size() || files_[index].total_bytes == 0 ||
      files_[index].bytes.size() != files_[index].total_bytes) {
    return absl::DataLossError(absl::StrCat("chunks of picture ", index, " are missing"));
  }
  return std::move(files_[index].bytes);
}

}  // namespace hanmo
