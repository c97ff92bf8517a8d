// The batcher's view of a worker: steps go down, results come up. worker_link implements it over
// gRPC, testing/fake_worker in memory.
#ifndef HANMO_SERVER_BATCHER_WORKER_H_
#define HANMO_SERVER_BATCHER_WORKER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batcher/request.h"
#include "server/batcher/sink.h"

namespace hanmo {

// The unit of work: one step of one model for a set of samples.
enum class StepKind {
  kTextEncode,
  kDenoise,
  kVaeDecode,
  kText,           // prefill chunks and decode tokens, mixed; of pictures painted by tokens, too
  kPictureEncode,  // the pictures that texts are about
};

struct Row {
  SampleHandle sample = 0;
  // kText: known tokens to run; 0 for one decode token. See hanmo.worker.v1.Row.
  uint32_t prefill_tokens = 0;
  std::vector<uint32_t> new_pages;
  bool preview = false;
  uint32_t draft_tokens = 0;  // kText, decode: guesses that may be run along
};

struct Step {
  uint64_t id = 0;  // increasing per worker
  ModelId model = 0;
  StepKind kind = StepKind::kText;
  std::vector<Row> rows;
  // Picture kinds: the step is suspended at its next yield point once it has run this long. Zero:
  // it runs to its end.
  absl::Duration budget;
};

// Where a sample goes on: from its start, or after a worker was lost.
struct Resume {
  std::vector<uint32_t> emitted;  // texts: tokens that the client has already
  std::string save_point;         // pictures: empty starts anew
  // Texts: of the first known tokens, in the pages that the first row's new_pages begin with.
  uint32_t cached_tokens = 0;
};

struct RowResult {
  SampleHandle sample = 0;
  absl::Status status;  // not OK: this sample is gone, the others are well
  absl::InlinedVector<Token, 1> tokens;
  bool skipped = false;
  uint32_t drafted = 0;  // kText: guesses run; all but one of `tokens` were guessed right
  uint32_t steps_done = 0;
  uint32_t steps_total = 0;  // model calls in all; known after kTextEncode
  Pixels picture;
  std::optional<float> score;  // of the picture, where its job asked for one; -1 to 1
  Pixels preview;
};

// Of a worker's device, in bytes.
struct DeviceMemory {
  uint64_t total = 0;
  uint64_t free = 0;  // what the worker could still allocate; 0: unknown
  uint64_t used = 0;  // by the worker
};

// Answers one Run or one Resume.
struct StepResult {
  uint64_t step = 0;
  absl::Status status;  // not OK: no row advanced
  std::vector<RowResult> rows;
  bool suspended = false;      // the budget has passed: no row advanced yet, and `rows` is empty
  bool already_done = false;   // a Resume that came too late: nothing ran, and `rows` is empty
  absl::Duration device_time;  // of this slice
  absl::Duration idle_time;    // the device stood still before it, though there was work
  uint64_t peak_bytes = 0;     // working memory of the whole step, beyond what there was before
  DeviceMemory memory;         // after it
};

struct SavePoint {
  SampleHandle sample = 0;
  uint32_t steps_done = 0;
  std::string bytes;
};

// What one worker can do with one loaded model.
struct ModelCapacity {
  uint32_t page_tokens = 0;  // texts: tokens per KV page; 0 for picture models
  uint32_t pages = 0;        // page ids are 0 to pages - 1
  uint64_t page_bytes = 0;
  uint32_t max_batch = 64;  // rows per step at most
};

// Commands to one worker, in order. Called on the batcher's thread; none blocks; after the worker
// is lost they do nothing. Results are reported to Batcher::StepDone and Batcher::Saved.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Begin(SampleHandle sample, ModelId model, const SampleJob& job,
                     hanmo::Resume resume) = 0;
  virtual void Run(const Step& step) = 0;
  // Goes on with a step that was sent with a budget, for `budget` (zero: to its end). May be sent
  // before the step is known to be suspended; if it was not, the result says already_done. While a
  // step is suspended the worker runs texts, and refuses other picture steps. A Drop of all of its
  // samples abandons it.
  virtual void Resume(uint64_t step, absl::Duration budget) = 0;
  virtual void Save(const std::vector<SampleHandle>& samples) = 0;
  virtual void Drop(const std::vector<SampleHandle>& samples) = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_WORKER_H_
