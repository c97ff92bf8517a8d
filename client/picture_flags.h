// The flags of `hanmo image`.
#ifndef HANMO_CLIENT_PICTURE_FLAGS_H_
#define HANMO_CLIENT_PICTURE_FLAGS_H_

#include <cstdint>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "client/console.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

struct PictureFlags {
  std::string prompt;
  // Prompt and format are set by CompletePictureRequest, the rest by the flags.
  hanmo::v1::GenerateRequest request;
  std::string output;
  std::string format;
  std::string preview;

  // Pictures that are answered.
  uint32_t count() const { return request.picture().has_count() ? request.picture().count() : 1; }
  // And painted: their indices are below it.
  uint32_t candidates() const {
    return request.picture().has_best_of() ? request.picture().best_of() : count();
  }
};

// `flags` outlives the parsing.
void AddPictureFlags(CLI::App* app, PictureFlags* flags);

// Of these, the ones that any number of like requests can share; none is required.
void AddPictureRequestFlags(CLI::App* app, PictureFlags* flags);

// Reads the prompt, settles the format, checks the output files. What is wrong names the flag.
absl::Status CompletePictureRequest(const Console& console, PictureFlags* flags);

}  // namespace hanmo

#endif  // HANMO_CLIENT_PICTURE_FLAGS_H_
