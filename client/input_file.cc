#include "client/input_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/terminal_text.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

// At most one byte more than `max_bytes`, which tells that there is more.
std::string ReadUpTo(std::istream& in, size_t max_bytes) {
  std::string text(max_bytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

absl::Status AddMessage(const nlohmann::json& message, hanmo::v1::Chat* chat) {
  const auto has_text = [&message](const char* key) {
    return message.is_object() && message.contains(key) && message[key].is_string();
  };
  if (!has_text("role") || !has_text("content") || message.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an object with the texts \"role\" and \"content\""));
  }
  hanmo::v1::ChatMessage* added = chat->add_messages();
  added->set_role(message["role"].get<std::string>());
  added->set_content(message["content"].get<std::string>());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::ErrnoToStatus(errno, path);
  std::string text = ReadUpTo(file, max_bytes);
  if (file.bad()) return absl::ErrnoToStatus(errno, path);
  if (text.size() > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": must be at most ", max_bytes, " bytes"));
  }
  return text;
}

absl::StatusOr<std::string> ReadPicture(const std::string& path, const std::string& flag,
                                        std::istream& in) {
  auto file = path == "-" ? absl::StatusOr<std::string>(ReadUpTo(in, kMaxPictureBytes))
                          : ReadFile(path, kMaxPictureBytes);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(flag, ": ", file.status().message()));
  }
  if (file->size() > kMaxPictureBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(flag, ": must be at most ", kMaxPictureBytes, " bytes"));
  }
  return file;
}

absl::StatusOr<std::string> ReadText(const std::string& argument, const std::string& flag,
                                     std::istream& in) {
  std::string text = argument;
  if (argument == "-") {
    // Room for the line feed that is taken off.
    text = ReadUpTo(in, kMaxTextBytes + 1);
    text = std::string(absl::StripSuffix(text, "\n"));
  }
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": must be at most ", kMaxTextBytes, " bytes"));
  }
  if (!IsUtf8(text)) return absl::InvalidArgumentError(absl::StrCat(flag, ": must be valid UTF-8"));
  return text;
}

absl::Status ReadMessages(const std::string& path, std::istream& in, hanmo::v1::Chat* chat) {
  // JSON may write a character in six bytes; the server judges the texts.
  constexpr size_t kMaxJsonBytes = 8 * kMaxTextBytes;
  const absl::StatusOr<std::string> text =
      path == "-" ? absl::StatusOr<std::string>(ReadUpTo(in, kMaxJsonBytes))
                  : ReadFile(path, kMaxJsonBytes);
  if (!text.ok()) return text.status();
  const nlohmann::json messages = nlohmann::json::parse(*text, nullptr, false);
  if (!messages.is_array()) {
    return absl::InvalidArgumentError(
        "--messages: must be a JSON list, [{\"role\": \"user\", \"content\": \"...\"}, ...]");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (auto status = AddMessage(messages[i], chat); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--messages: entry ", i, " ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace hanmo
