// A read-only memory mapping of a whole file: checkpoints are read through it, so that weights
// whose type already is the serving type need no copy and no anonymous memory.
#ifndef HANMO_WORKERS_CHECKPOINT_MAPPED_FILE_H_
#define HANMO_WORKERS_CHECKPOINT_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace hanmo {

// Immutable and safe to share between threads. The file must keep its length while it is mapped:
// replacing it by rename is fine, truncating it in place ends the process with SIGBUS.
class MappedFile {
 public:
  // NOT_FOUND without such a file, INVALID_ARGUMENT when it is empty or not a regular file.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Gives the whole pages inside [offset, offset + size) back to the system; they are read again
  // from the file on the next access. Called after a range was converted into own memory.
  void Release(size_t offset, size_t size) const;

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size);

  const std::string path_;
  const uint8_t* const data_;
  const size_t size_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_MAPPED_FILE_H_
