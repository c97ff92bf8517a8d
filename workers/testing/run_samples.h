// Drives an executor as the batcher does: for tests that want a sample's result, alone or in
// company, whole or cut by a save point.
#ifndef HANMO_WORKERS_TESTING_RUN_SAMPLES_H_
#define HANMO_WORKERS_TESTING_RUN_SAMPLES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/batcher/request.h"
#include "server/batcher/worker.h"
#include "workers/executor.h"

namespace hanmo::testing {

// One picture's way through an executor; several may share one.
struct PaintedPicture {
  absl::Status status;
  Pixels pixels;
  std::string save_point;  // after the last denoising step
  uint32_t steps = 0;
};

// Begins all jobs and paints them with every step shared by all that still need it. Sample handles
// are first_sample, first_sample + 1, ...; they are dropped at the end.
std::vector<PaintedPicture> PaintTogether(Executor& executor, ModelId model,
                                          const std::vector<PictureJob>& jobs,
                                          SampleHandle first_sample = 1);

struct WrittenText {
  absl::Status status;
  std::vector<Token> tokens;
};

// Begins all jobs and writes them with every step shared by all that have not ended, prompts in
// chunks of `chunk` tokens. Sample i takes KV pages of its own.
std::vector<WrittenText> WriteTogether(Executor& executor, ModelId model,
                                       const std::vector<TextJob>& jobs, uint32_t chunk,
                                       const std::vector<Resume>& resumes = {});

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_TESTING_RUN_SAMPLES_H_
