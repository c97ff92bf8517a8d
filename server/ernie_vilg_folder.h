// Reads the configuration of an ERNIE-ViLG checkpoint; docs/ernie-vilg.md has the layout.
#ifndef HANMO_SERVER_ERNIE_VILG_FOLDER_H_
#define HANMO_SERVER_ERNIE_VILG_FOLDER_H_

#include <filesystem>

#include "absl/status/status.h"
#include "server/repository.h"

namespace hanmo {

// Fills in the spec's kind, text, picture and tokens. INVALID_ARGUMENT names the file and the key
// that is missing, out of range, or at odds with another: the grid of picture tokens with the size
// of the pictures that the VQGAN makes, ids with the vocabulary.
absl::Status ReadErnieVilg(const std::filesystem::path& folder, ModelSpec* spec);

}  // namespace hanmo

#endif  // HANMO_SERVER_ERNIE_VILG_FOLDER_H_
