// Decoder-only text models of every family that decoder_family.h describes.
#ifndef HANMO_WORKERS_MODELS_DECODER_H_
#define HANMO_WORKERS_MODELS_DECODER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/text_model.h"

namespace hanmo {

// INVALID_ARGUMENT where "model_type" names no family; else as TextModel::Load.
absl::StatusOr<std::unique_ptr<TextModel>> LoadDecoder(Checkpoint& checkpoint,
                                                       const TextModelOptions& options);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_DECODER_H_
