// From a GenerateRequest to what the batcher takes: every field checked, defaults filled in from
// the model, seeds drawn, texts turned into token ids.
#ifndef HANMO_SERVER_RPC_REQUEST_FROM_PROTO_H_
#define HANMO_SERVER_RPC_REQUEST_FROM_PROTO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hanmo/v1/generation.pb.h"
#include "server/batcher/request.h"
#include "server/media/picture_encoder.h"
#include "server/rpc/model_table.h"

namespace hanmo {

inline constexpr size_t kMaxTextBytes = 1 << 20;  // of all texts of a request together
inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr uint32_t kMaxSamples = 16;  // texts or pictures of one request

// A checked request on its way to the batcher, with what the answer needs later.
struct GenerationPlan {
  ModelRef model;
  std::string request_id;
  // Texts: sampling is complete; prompts are set by SetPrompts.
  Request request;
  bool paints = false;  // the samples are pictures, not texts
  // Padding within the prompts, which is no part of the usage.
  uint32_t padding = 0;

  // Texts.
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;  // the request's own
  bool include_stop = false;
  bool logprobs = false;
  bool default_max_tokens = false;  // max_tokens is what fits
  std::string guide_field;          // empty: the texts are free
  // Texts about a picture, which ReadPicture sets, and the tokens that they begin with.
  bool caption = false;
  PictureInput picture;
  std::vector<uint32_t> begun;

  // Pictures.
  EncodeOptions encode;
  uint32_t chosen = 0;  // so many of the samples, the best by score, are the answer; 0: all
  hanmo::v1::PictureFormat format = hanmo::v1::PICTURE_FORMAT_PNG;
  uint32_t steps_per_event = 1;
};

// Checks all fields and fills everything but the prompts and the picture. NOT_FOUND for an unknown
// model, INVALID_ARGUMENT with all violations that could be told, UNIMPLEMENTED for inputs that no
// model here reads, FAILED_PRECONDITION for a model that could not be loaded (with its reason).
absl::StatusOr<GenerationPlan> PlanFromProto(const hanmo::v1::GenerateRequest& proto,
                                             const ModelTable& models);

// The model of that name and version (a number, a label, or empty). INVALID_ARGUMENT for `field`
// when the name is empty, NOT_FOUND when there is no such model or version, FAILED_PRECONDITION
// when no version of it is loaded.
absl::StatusOr<ModelRef> FindModel(const ModelTable& models, const std::string& name,
                                   const std::string& version, absl::string_view field,
                                   absl::string_view version_field = "version");

// Bytes of text that SetPrompts will tokenize: it takes about a microsecond for each few.
size_t PromptBytes(const hanmo::v1::GenerateRequest& proto);

// Tokenizes the input into plan->request; a caption has its picture by then. INVALID_ARGUMENT when
// it is empty, too long for the model or refused by the chat template.
absl::Status SetPrompts(const hanmo::v1::GenerateRequest& proto, GenerationPlan* plan);

// Compiles the request's guide, if it has one: tens of milliseconds for a large one, more for a
// model's first. INVALID_ARGUMENT says what is wrong with it.
absl::Status CheckGuide(const GenerationPlan& plan);

// 1 to 128 of [A-Za-z0-9._-].
bool IsRequestId(absl::string_view id);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_REQUEST_FROM_PROTO_H_
