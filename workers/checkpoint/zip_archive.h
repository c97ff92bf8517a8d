// The directory of a zip file, for archives written by torch.save: stored entries only, every
// entry's bytes checked to lie within the file.
#ifndef HANMO_WORKERS_CHECKPOINT_ZIP_ARCHIVE_H_
#define HANMO_WORKERS_CHECKPOINT_ZIP_ARCHIVE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace hanmo {

struct ZipEntry {
  absl::string_view name;  // within the file's bytes
  uint64_t offset = 0;     // of the content, from the start of the file
  uint64_t size = 0;       // of the content in bytes
};

// Entries in directory order; zip64 is understood. INVALID_ARGUMENT for torn files, compressed or
// encrypted entries, and content outside the file. Reads the directory and the local headers only.
absl::StatusOr<std::vector<ZipEntry>> ListZip(absl::Span<const uint8_t> file);

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_ZIP_ARCHIVE_H_
