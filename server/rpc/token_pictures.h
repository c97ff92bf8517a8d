// Requests to models of kPictureTokens: pictures painted token by token from words, and texts about
// pictures. docs/ernie-vilg.md has the order of the tokens.
#ifndef HANMO_SERVER_RPC_TOKEN_PICTURES_H_
#define HANMO_SERVER_RPC_TOKEN_PICTURES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "hanmo/v1/generation.pb.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"

namespace hanmo {

// Whether a part of the input is a picture.
bool HasPicture(const hanmo::v1::GenerateRequest& proto);

// One picture comes first, and after it at most one text.
void CheckPictureParts(const hanmo::v1::GenerateRequest& proto, Violations* violations);

// Decodes the picture of such parts into plan->picture, as the model reads it. Takes time and
// memory: see DecodePicture. INVALID_ARGUMENT when its file is no good.
absl::Status ReadPicture(const hanmo::v1::GenerateRequest& proto, GenerationPlan* plan);

// Of texts about plan->picture: their tokens are the source, the words that they begin with the
// target so far. INVALID_ARGUMENT when these leave no room.
absl::Status SetCaptionPrompt(const hanmo::v1::GenerateRequest& proto, GenerationPlan* plan);

// Of pictures: `source` is the prompt in its frame, within the model's length; `score_prompt` is
// what they are scored against, or empty.
void SetPaintingPrompt(const std::vector<uint32_t>& source,
                       const std::vector<uint32_t>& score_prompt, GenerationPlan* plan);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_TOKEN_PICTURES_H_
