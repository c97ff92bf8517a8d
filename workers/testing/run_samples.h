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
  uint32_t rows = 0;
  uint32_t drafted = 0;
};

struct WriteOptions {
  uint32_t chunk = 512;  // prompt tokens of a row at most
  uint32_t draft_tokens = 0;
  std::vector<Resume> resumes;  // of each job, or none
  // Pages that every job's first row begins with; the others are the job's own, from own_page on.
  std::vector<uint32_t> shared_pages;
  uint32_t own_page = 0;
};

// Begins all jobs and writes them with every step shared by all that have not ended.
std::vector<WrittenText> WriteTogether(Executor& executor, ModelId model,
                                       const std::vector<TextJob>& jobs,
                                       const WriteOptions& options = {});

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_TESTING_RUN_SAMPLES_H_
