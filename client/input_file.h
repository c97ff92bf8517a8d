// What a command reads: prompts, messages and pictures, from files or from stdin.
#ifndef HANMO_CLIENT_INPUT_FILE_H_
#define HANMO_CLIENT_INPUT_FILE_H_

#include <cstddef>
#include <istream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

// The server takes no more text than this in a request.
inline constexpr size_t kMaxTextBytes = 1 << 20;
// Nor a larger picture.
inline constexpr size_t kMaxPictureBytes = 16 << 20;

// The bytes of the file at `path`. NOT_FOUND and the like name the path; RESOURCE_EXHAUSTED when it
// is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// The bytes of the picture file at `path`, or for "-" what `in` has to its end. As ReadFile, with
// the server's limit; what is wrong names `flag`.
absl::StatusOr<std::string> ReadPicture(const std::string& path, const std::string& flag,
                                        std::istream& in);

// `argument`, or for "-" what `in` has to its end, without one line feed at its end.
// INVALID_ARGUMENT, naming `flag`, when that is no UTF-8 or too long.
absl::StatusOr<std::string> ReadText(const std::string& argument, const std::string& flag,
                                     std::istream& in);

// Adds the messages of a JSON file (or of `in` for "-") to `chat`:
// [{"role": "user", "content": "..."}, ...]. INVALID_ARGUMENT when it is not that.
absl::Status ReadMessages(const std::string& path, std::istream& in, hanmo::v1::Chat* chat);

}  // namespace hanmo

#endif  // HANMO_CLIENT_INPUT_FILE_H_
