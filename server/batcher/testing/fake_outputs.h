// What the fake worker makes of a job: it depends on the job alone.
#ifndef HANMO_SERVER_BATCHER_TESTING_FAKE_OUTPUTS_H_
#define HANMO_SERVER_BATCHER_TESTING_FAKE_OUTPUTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/batcher/request.h"

namespace hanmo::testing {

// A hash.
uint64_t Mix(uint64_t x);

// Token `position` (0 is the first one written) of a text.
uint32_t TokenOf(const TextJob& job, uint32_t position);
// A picture before its first step, and after one more.
uint64_t PaintStart(const PictureJob& job);
inline uint64_t PaintStep(uint64_t paint, uint32_t step) { return Mix(paint + step); }
// The picture of a job.
std::string PictureOf(const PictureJob& job);
std::string PictureOf(const TextJob& job);
uint64_t SeedOf(const SampleJob& job);
const std::vector<uint32_t>& ScorePromptOf(const SampleJob& job);
// The score of a job's picture, where it has a score_prompt.
float ScoreOf(const SampleJob& job);

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_BATCHER_TESTING_FAKE_OUTPUTS_H_
