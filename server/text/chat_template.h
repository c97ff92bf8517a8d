// Renders a conversation into the prompt a checkpoint was trained on, with the checkpoint's own
// Jinja2 template, as transformers' apply_chat_template does.
//
// A ChatTemplate never changes after loading and is used by any number of threads at the same time.
#ifndef HANMO_SERVER_TEXT_CHAT_TEMPLATE_H_
#define HANMO_SERVER_TEXT_CHAT_TEMPLATE_H_

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "bridge/hanmo_bridge.h"
#include "server/text/tokenizer.h"

namespace hanmo {

struct ChatMessage {
  std::string role;  // usually "system", "user" or "assistant"
  std::string content;
};

struct ChatOptions {
  // Ends the prompt with the opening of an assistant message, where the template knows it.
  bool add_generation_prompt = true;
  // `enable_thinking` of the template; absent: undefined there, so that its own default holds.
  std::optional<bool> thinking;
  // What a template's strftime_now shows, in the local time zone.
  absl::Time now;
};

class ChatTemplate {
 public:
  // Reads chat_template.jinja in `folder`, else `chat_template` of its tokenizer_config.json (of
  // several named ones "default"), and takes the special tokens' names from `tokenizer`. NOT_FOUND
  // if the checkpoint has no template, INVALID_ARGUMENT with the line if it doesn't parse.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Load(
      const std::filesystem::path& folder, const Tokenizer& tokenizer);

  // From the template's source; `special_tokens` maps names such as "bos_token" to their text.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> FromSource(
      absl::string_view source, std::map<std::string, std::string> special_tokens);

  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;
  ~ChatTemplate();

  // The prompt, to be encoded without special tokens (the template writes them itself).
  // INVALID_ARGUMENT if a message is not UTF-8, the template refuses the conversation
  // (raise_exception, whose message is passed on) or exceeds its bounds of work and output.
  absl::StatusOr<std::string> Render(absl::Span<const ChatMessage> messages,
                                     const ChatOptions& options) const;

  // Whether the template heeds ChatOptions::thinking.
  bool has_thinking_switch() const { return has_thinking_switch_; }

 private:
  ChatTemplate(hanmo_chat_template* chat_template, bool has_thinking_switch,
               std::map<std::string, std::string> special_tokens);

  hanmo_chat_template* chat_template_;  // owned
  const bool has_thinking_switch_;
  const std::map<std::string, std::string> special_tokens_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_CHAT_TEMPLATE_H_
