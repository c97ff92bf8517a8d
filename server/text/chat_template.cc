#include "server/text/chat_template.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/text/bridge_result.h"
#include "server/text/folder_file.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

using Json = nlohmann::ordered_json;

// The variable by which templates switch thinking.
constexpr char kThinking[] = "enable_thinking";

// `chat_template` of tokenizer_config.json: a string, or a list of objects with name and template.
absl::StatusOr<std::string> TemplateOfConfig(absl::string_view config) {
  const Json json = Json::parse(config.begin(), config.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("tokenizer_config.json: not a JSON object");
  }
  const auto found = json.find("chat_template");
  if (found == json.end() || found->is_null()) {
    return absl::NotFoundError("the checkpoint has no chat template");
  }
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const Json& named : *found) {
      if (!named.is_object() || named.value("name", Json()) != "default") continue;
      const Json source = named.value("template", Json());
      if (source.is_string()) return source.get<std::string>();
    }
  }
  return absl::InvalidArgumentError(
      "tokenizer_config.json: chat_template must be a string, or a list with a \"default\"");
}

absl::StatusOr<std::map<std::string, std::string>> SpecialTokenTexts(const Tokenizer& tokenizer) {
  const SpecialTokenIds& ids = tokenizer.special();
  const std::pair<const char*, std::optional<uint32_t>> names[] = {
      {"bos_token", ids.bos},   {"eos_token", ids.eos}, {"unk_token", ids.unk},
      {"sep_token", ids.sep},   {"pad_token", ids.pad}, {"cls_token", ids.cls},
      {"mask_token", ids.mask},
  };
  std::map<std::string, std::string> texts;
  for (const auto& [name, id] : names) {
    if (!id) continue;
    auto piece = tokenizer.Piece(*id);
    if (!piece.ok()) return piece.status();
    texts[name] = std::move(piece->bytes);
  }
  return texts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Load(
    const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  auto source = ReadFolderFile(folder, "chat_template.jinja");
  if (!source.ok()) return source.status();
  if (!*source) {
    auto config = ReadFolderFile(folder, "tokenizer_config.json");
    if (!config.ok()) return config.status();
    if (!*config) return absl::NotFoundError("the checkpoint has no chat template");
    auto from_config = TemplateOfConfig(**config);
    if (!from_config.ok()) return from_config.status();
    *source = *std::move(from_config);
  }
  auto special_tokens = SpecialTokenTexts(tokenizer);
  if (!special_tokens.ok()) return special_tokens.status();
  return FromSource(**source, *std::move(special_tokens));
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::FromSource(
    absl::string_view source, std::map<std::string, std::string> special_tokens) {
  hanmo_chat_template* chat_template = nullptr;
  char* error = nullptr;
  if (hanmo_chat_template_create(source.data(), source.size(), &chat_template, &error) != 0) {
    return BridgeError("chat_template", error);
  }
  return std::unique_ptr<const ChatTemplate>(new ChatTemplate(
      chat_template, absl::StrContains(source, kThinking), std::move(special_tokens)));
}

ChatTemplate::ChatTemplate(hanmo_chat_template* chat_template, bool has_thinking_switch,
                           std::map<std::string, std::string> special_tokens)
    : chat_template_(chat_template),
      has_thinking_switch_(has_thinking_switch),
      special_tokens_(std::move(special_tokens)) {}

ChatTemplate::~ChatTemplate() { hanmo_chat_template_free(chat_template_); }

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages,
                                                 const ChatOptions& options) const {
  Json context = {{"messages", Json::array()},
                  {"tools", nullptr},
                  {"documents", nullptr},
                  {"add_generation_prompt", options.add_generation_prompt}};
  if (options.thinking) context[kThinking] = *options.thinking;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!IsValidUtf8(messages[i].role) || !IsValidUtf8(messages[i].content)) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "]: not valid UTF-8"));
    }
    context["messages"].push_back({{"role", messages[i].role}, {"content", messages[i].content}});
  }
  for (const auto& [name, text] : special_tokens_) context[name] = text;
  const std::string encoded =
      context.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);

  char* text = nullptr;
  size_t size = 0;
  char* error = nullptr;
  if (hanmo_chat_template_render(chat_template_, encoded.data(), encoded.size(),
                                 absl::ToUnixSeconds(options.now), &text, &size, &error) != 0) {
    return BridgeError("messages", error);
  }
  const BridgeString owned(text);
  return std::string(text, size);
}

}  // namespace hanmo
