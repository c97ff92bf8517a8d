#include "server/rpc/request_from_proto.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/picture_fields.h"
#include "server/rpc/text_fields.h"
#include "server/rpc/token_pictures.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;

// One system call serves the request id and the seed.
struct Randomness {
  std::array<unsigned char, 12> id;
  uint32_t seed;
};

Randomness Draw() {
  Randomness random = {};
  // At most 256 bytes never fail nor come short once the kernel has booted.
  (void)getrandom(&random, sizeof(random), 0);
  return random;
}

void CheckRequestId(const GenerateRequest& proto, Violations* violations) {
  if (proto.request_id().empty() || IsRequestId(proto.request_id())) return;
  violations->Add("request_id", absl::StrCat("must be at most ", kMaxRequestIdBytes,
                                             " characters of [A-Za-z0-9._-]"));
}

void CheckScheduling(const GenerateRequest& proto, Violations* violations) {
  if (!proto.tenant().empty() && !IsRequestId(proto.tenant())) {
    violations->Add("tenant", absl::StrCat("must be at most ", kMaxRequestIdBytes,
                                           " characters of [A-Za-z0-9._-]"));
  }
  violations->CheckRange("priority", proto.priority(), -100, 100);
}

bool IsCaption(const GenerateRequest& proto, const Model& model) {
  return model.spec.kind == ModelKind::kPictureTokens && HasPicture(proto);
}

void CheckChat(const GenerateRequest& proto, const Model& model, Violations* violations) {
  const auto& messages = proto.chat().messages();
  if (model.chat_template == nullptr) {
    violations->Add("chat", "this model has no chat template; use prompt");
  } else if (proto.chat().has_thinking() && !model.chat_template->has_thinking_switch()) {
    violations->Add("chat.thinking", "this model's chat template has no switch for thinking");
  }
  if (messages.empty() || messages.size() > 1024) {
    violations->Add("chat.messages", absl::StrCat("must be 1 to 1024, got ", messages.size()));
    return;
  }
  for (int i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role();
    if (role != "system" && role != "user" && role != "assistant") {
      violations->Add(absl::StrCat("chat.messages[", i, "].role"),
                      "must be \"system\", \"user\" or \"assistant\"");
    }
  }
}

void CheckParts(const GenerateRequest& proto, Violations* violations) {
  if (proto.parts().parts().empty()) {
    violations->Add("parts.parts", "must not be empty");
  }
  for (int i = 0; i < proto.parts().parts_size(); ++i) {
    const auto& part = proto.parts().parts(i);
    if (part.has_picture()) {
      violations->Add(absl::StrCat("parts.parts[", i, "].picture"),
                      "this model does not read pictures");
    } else if (!part.has_text()) {
      violations->Add(absl::StrCat("parts.parts[", i, "]"), "must have text or a picture");
    }
  }
}

void CheckTokenIds(const GenerateRequest& proto, const Model& model, Violations* violations) {
  const auto& ids = proto.token_ids().ids();
  if (ids.empty()) violations->Add("token_ids.ids", "must not be empty");
  const uint32_t vocabulary = model.spec.kind == ModelKind::kText
                                  ? model.spec.text.vocabulary_size
                                  : model.spec.picture.vocabulary_size;
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] < vocabulary) continue;
    violations->Add(
        absl::StrCat("token_ids.ids[", i, "]"),
        absl::StrCat("must be below the vocabulary size ", vocabulary, ", got ", ids[i]));
    return;  // one tells enough of a list that may be long
  }
}

void CheckInput(const GenerateRequest& proto, const Model& model, Violations* violations) {
  switch (proto.input_case()) {
    case GenerateRequest::kPrompt:
      if (proto.prompt().empty()) violations->Add("prompt", "must not be empty");
      break;
    case GenerateRequest::kChat:
      CheckChat(proto, model, violations);
      break;
    case GenerateRequest::kParts:
      if (IsCaption(proto, model)) {
        CheckPictureParts(proto, violations);
      } else {
        CheckParts(proto, violations);
      }
      break;
    case GenerateRequest::kTokenIds:
      CheckTokenIds(proto, model, violations);
      break;
    case GenerateRequest::INPUT_NOT_SET:
      violations->Add("prompt", "one of prompt, chat, parts and token_ids is required");
      break;
  }
  if (proto.input_case() != GenerateRequest::kTokenIds && model.tokenizer == nullptr) {
    violations->Add("token_ids", "is required: this model has no tokenizer");
  }
  const size_t bytes = PromptBytes(proto);
  if (bytes > kMaxTextBytes) {
    violations->Add(
        proto.has_chat()    ? "chat"
        : proto.has_parts() ? "parts"
                            : "prompt",
        absl::StrCat("texts must be at most ", kMaxTextBytes, " bytes together, got ", bytes));
  }
}

// The words of a prompt that is not a conversation.
std::string PlainPrompt(const GenerateRequest& proto) {
  if (proto.has_prompt()) return proto.prompt();
  std::string text;
  for (const auto& part : proto.parts().parts()) text += part.text();
  return text;
}

absl::StatusOr<std::string> RenderChat(const GenerateRequest& proto, const Model& model) {
  std::vector<ChatMessage> messages;
  for (const auto& message : proto.chat().messages()) {
    messages.push_back({message.role(), message.content()});
  }
  ChatOptions options;
  options.now = absl::Now();
  if (proto.chat().has_thinking()) options.thinking = proto.chat().thinking();
  auto text = model.chat_template->Render(messages, options);
  // What the template says may quote the conversation; the caller has it anyway.
  if (!text.ok()) return FieldError("chat", text.status().message());
  return text;
}

absl::StatusOr<std::vector<uint32_t>> TextPromptIds(const GenerateRequest& proto,
                                                    const Model& model) {
  if (proto.has_token_ids()) {
    return std::vector<uint32_t>(proto.token_ids().ids().begin(), proto.token_ids().ids().end());
  }
  if (!proto.has_chat()) {
    const std::string text = PlainPrompt(proto);
    if (text.empty()) return FieldError("parts", "must not be empty");
    return model.tokenizer->Encode(text, /*add_special=*/true);
  }
  auto text = RenderChat(proto, model);
  if (!text.ok()) return text.status();
  return model.tokenizer->Encode(*text, /*add_special=*/false);
}

absl::StatusOr<std::vector<uint32_t>> PadTokenIds(const GenerateRequest& proto,
                                                  const Model& model) {
  const uint32_t length = model.spec.picture.prompt_tokens;
  std::vector<uint32_t> ids(proto.token_ids().ids().begin(), proto.token_ids().ids().end());
  if (ids.size() > length) {
    return FieldError("token_ids", absl::StrCat("must be at most ", length,
                                                " tokens for this model, got ", ids.size()));
  }
  if (ids.size() == length) return ids;
  const auto pad = model.tokenizer != nullptr ? model.tokenizer->special().pad : std::nullopt;
  if (!pad) {
    return FieldError("token_ids",
                      absl::StrCat("must be ", length, " tokens: this model has no padding"));
  }
  ids.resize(length, *pad);
  return ids;
}

absl::StatusOr<std::vector<uint32_t>> PictureWords(absl::string_view field, const std::string& text,
                                                   const Model& model) {
  const uint32_t length = model.spec.picture.prompt_tokens;
  auto padded = model.tokenizer->EncodePadded(text, length);
  if (!padded.ok()) return padded.status();
  if (!padded->truncated) return std::move(padded->ids);
  const auto all = model.tokenizer->Encode(text, /*add_special=*/true);
  if (!all.ok()) return all.status();
  return FieldError(
      field, absl::StrCat("must be at most ", length, " tokens for this model, got ", all->size()));
}

// The prompt in its frame, not padded.
absl::StatusOr<std::vector<uint32_t>> PaintingSource(const GenerateRequest& proto,
                                                     const Model& model) {
  const uint32_t length = model.spec.picture.prompt_tokens;
  const auto& own = proto.token_ids().ids();
  auto ids = proto.has_token_ids()
                 ? absl::StatusOr<std::vector<uint32_t>>({own.begin(), own.end()})
                 : model.tokenizer->Encode(PlainPrompt(proto), /*add_special=*/true);
  if (!ids.ok() || ids->size() <= length) return ids;
  return FieldError(
      proto.has_token_ids() ? "token_ids" : "prompt",
      absl::StrCat("must be at most ", length, " tokens for this model, got ", ids->size()));
}

// The same words for the reranker, cut where it reads no further.
absl::StatusOr<std::vector<uint32_t>> ScorePrompt(const std::string& text, const Model& model) {
  const Tokenizer& tokenizer =
      model.reranker_tokenizer != nullptr ? *model.reranker_tokenizer : *model.tokenizer;
  const uint32_t most = model.spec.picture.reranker_tokens;
  auto ids = tokenizer.Encode(text, /*add_special=*/true);
  if (!ids.ok() || ids->size() <= most) return ids;
  auto cut = tokenizer.EncodePadded(text, most);
  if (!cut.ok()) return cut.status();
  return std::move(cut->ids);
}

absl::Status SetPaintingPrompts(const GenerateRequest& proto, GenerationPlan* plan) {
  const auto source = PaintingSource(proto, *plan->model);
  if (!source.ok()) return source.status();
  std::vector<uint32_t> score_prompt;
  if (plan->chosen > 0) {
    auto ids = ScorePrompt(PlainPrompt(proto), *plan->model);
    if (!ids.ok()) return ids.status();
    score_prompt = *std::move(ids);
  }
  SetPaintingPrompt(*source, score_prompt, plan);
  return absl::OkStatus();
}

absl::Status SetPicturePrompts(const GenerateRequest& proto, GenerationPlan* plan) {
  auto prompt = proto.has_token_ids() ? PadTokenIds(proto, *plan->model)
                                      : PictureWords("prompt", PlainPrompt(proto), *plan->model);
  if (!prompt.ok()) return prompt.status();
  std::vector<uint32_t> negative;
  if (std::get<PictureJob>(plan->request.samples[0]).guidance > 1) {
    auto ids =
        PictureWords("picture.negative_prompt", proto.picture().negative_prompt(), *plan->model);
    if (!ids.ok()) return ids.status();
    negative = *std::move(ids);
  }
  std::vector<uint32_t> score_prompt;
  if (plan->chosen > 0) {
    auto ids = ScorePrompt(PlainPrompt(proto), *plan->model);
    if (!ids.ok()) return ids.status();
    score_prompt = *std::move(ids);
  }
  for (SampleJob& sample : plan->request.samples) {
    std::get<PictureJob>(sample).score_prompt = score_prompt;
    std::get<PictureJob>(sample).prompt = *prompt;
    std::get<PictureJob>(sample).negative_prompt = negative;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationPlan> PlanFromProto(const GenerateRequest& proto,
                                             const ModelTable& models) {
  auto model = FindModel(models, proto.model(), proto.version(), "model");
  if (!model.ok()) return model.status();
  const ModelSpec& spec = (*model)->spec;
  if (models.phase(spec.id) == ModelPhase::kFailed) {
    return absl::FailedPreconditionError(
        absl::StrCat("model ", spec.name, " could not be loaded: ", models.Status(spec.id).detail));
  }

  Violations violations;
  CheckRequestId(proto, &violations);
  CheckScheduling(proto, &violations);
  CheckInput(proto, **model, &violations);

  GenerationPlan plan;
  plan.model = *model;
  plan.request.model = spec.id;
  plan.request.tenant = proto.tenant();
  plan.request.priority = proto.priority();
  const Randomness random = Draw();
  plan.caption = IsCaption(proto, **model);
  plan.paints = spec.kind != ModelKind::kText && !plan.caption;
  if (plan.paints) {
    PlanPicture(proto, random.seed, &plan, &violations);
  } else {
    PlanText(proto, random.seed, &plan, &violations);
  }
  if (!violations.empty()) return violations.ToStatus();
  plan.request_id = proto.request_id().empty()
                        ? absl::BytesToHexString(absl::string_view(
                              reinterpret_cast<const char*>(random.id.data()), random.id.size()))
                        : proto.request_id();
  return plan;
}

absl::StatusOr<ModelRef> FindModel(const ModelTable& models, const std::string& name,
                                   const std::string& version, absl::string_view field,
                                   absl::string_view version_field) {
  if (name.empty()) return FieldError(field, "is required");
  ModelRef model = models.Find(name, version);
  if (model != nullptr) return model;
  if (models.Knows(name)) {
    if (version.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(field, ": no version of model \"", name, "\" is loaded"));
    }
    return absl::NotFoundError(absl::StrCat(
        version_field, ": ",
        IsModelName(version)
            ? absl::StrCat("model \"", name, "\" has no version \"", version, "\" loaded")
            : "must be a version's number or a label"));
  }
  // Only a plausible name is worth repeating.
  return absl::NotFoundError(IsModelName(name)
                                 ? absl::StrCat(field, ": there is no model named \"", name, "\"")
                                 : absl::StrCat(field, ": there is no such model"));
}

size_t PromptBytes(const GenerateRequest& proto) {
  size_t bytes = proto.prompt().size() + proto.picture().negative_prompt().size();
  for (const auto& message : proto.chat().messages()) {
    bytes += message.role().size() + message.content().size();
  }
  for (const auto& part : proto.parts().parts()) bytes += part.text().size();
  for (const std::string& stop : proto.text().stop()) bytes += stop.size();
  return bytes;
}

absl::Status SetPrompts(const GenerateRequest& proto, GenerationPlan* plan) {
  if (plan->caption) return SetCaptionPrompt(proto, plan);
  if (plan->paints && plan->model->spec.kind == ModelKind::kPictureTokens) {
    return SetPaintingPrompts(proto, plan);
  }
  if (plan->paints) return SetPicturePrompts(proto, plan);
  auto prompt = TextPromptIds(proto, *plan->model);
  if (!prompt.ok()) return prompt.status();
  return SetTextPrompt(*std::move(prompt), plan);
}

absl::Status CheckGuide(const GenerationPlan& plan) {
  if (plan.guide_field.empty()) return absl::OkStatus();
  const auto& job = std::get<TextJob>(plan.request.samples[0]);
  const absl::Status status = plan.model->guides->Match(*job.guide).status();
  if (status.ok()) return status;
  return FieldError(absl::IsFailedPrecondition(status) ? "text.guide" : plan.guide_field,
                    status.message());
}

bool IsRequestId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace hanmo
