// The flags of `hanmo text` and of `hanmo caption`.
#ifndef HANMO_CLIENT_TEXT_FLAGS_H_
#define HANMO_CLIENT_TEXT_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "client/console.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

struct TextFlags {
  std::string prompt;
  std::string system;
  std::string user;
  std::string messages;
  std::vector<std::string> token_ids;
  std::string image;
  std::string begin;
  std::string expect;
  std::vector<std::string> stop;
  std::vector<std::string> stop_token_ids;
  std::vector<std::string> logit_bias;
  std::string json_schema;  // a file
  std::string regex;
  std::string grammar;  // a file
  std::vector<std::string> choices;
  std::optional<bool> thinking;
  bool echo = false;
  // Input and lists are set by CompleteTextRequest, the rest by the flags.
  hanmo::v1::GenerateRequest request;

  uint32_t count() const { return request.text().has_n() ? request.text().n() : 1; }
  // What the texts go on from.
  const std::string& begun() const { return request.has_parts() ? begin : request.prompt(); }
};

// `flags` outlives the parsing.
void AddTextFlags(CLI::App* app, TextFlags* flags);

// Those of `hanmo caption`: a picture is the input.
void AddCaptionFlags(CLI::App* app, TextFlags* flags);

// Of the flags of `hanmo text`, the ones that any number of like requests can share.
void AddTextRequestFlags(CLI::App* app, TextFlags* flags);

// Reads the input and the lists. What is wrong names the flag.
absl::Status CompleteTextRequest(const Console& console, TextFlags* flags);

// The same for a picture.
absl::Status CompleteCaptionRequest(const Console& console, TextFlags* flags);

// Reads the lists and the guide only; the input comes from elsewhere.
absl::Status CompleteTextParameters(TextFlags* flags);

// Ids separated by commas or spaces. INVALID_ARGUMENT names `flag`.
absl::Status ParseTokenIds(const std::vector<std::string>& texts, const std::string& flag,
                           std::vector<uint32_t>* ids);

}  // namespace hanmo

#endif  // HANMO_CLIENT_TEXT_FLAGS_H_
