// Puts the chunks of a stream together to whole files. The server is not trusted: chunks out of
// order or beyond their stated size are errors, and memory is bounded.
#ifndef HANMO_CLIENT_PICTURE_ASSEMBLER_H_
#define HANMO_CLIENT_PICTURE_ASSEMBLER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

class PictureAssembler {
 public:
  // No encoded picture is larger; 4096 x 4096 pixels are 48 MiB before encoding.
  static constexpr uint64_t kMaxPictureBytes = 256 << 20;

  explicit PictureAssembler(uint32_t count) : files_(count) {}

  // DATA_LOSS when it does not continue its picture.
  absl::Status Add(hanmo::v1::PictureChunk chunk);

  // The whole file of a picture; DATA_LOSS when chunks of it are missing.
  absl::StatusOr<std::string> Take(uint32_t index);

 private:
  struct File {
    uint64_t total_bytes = 0;  // 0 before the first chunk
    std::string bytes;
  };

  std::vector<File> files_;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_PICTURE_ASSEMBLER_H_
