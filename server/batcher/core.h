// The inside of Batcher. One class, five rooms:
//   admission.cc   into the queue, out of it, and every end of a request
//   placement.cc   which sample begins on which worker, and gives its place back
//   planning.cc    which step runs next, and with whom
//   results.cc     what came back
//   recovery.cc    dead workers and failed steps
#ifndef HANMO_SERVER_BATCHER_CORE_H_
#define HANMO_SERVER_BATCHER_CORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "server/batcher/batcher.h"
#include "server/batcher/state.h"

namespace hanmo {

// What the other threads say, in the order in which they said it.
namespace message {
struct Submit {
  RequestId id;
  Request request;
  std::shared_ptr<Sink> sink;
};
struct Cancel {
  RequestId id;
};
struct Wake {
  RequestId id;
};
struct AddWorker {
  WorkerId worker;
  std::shared_ptr<WorkerLink> link;
};
struct ModelReady {
  WorkerId worker;
  ModelId model;
  ModelCapacity capacity;
};
struct WorkerLost {
  WorkerId worker;
};
struct ModelFailed {
  ModelId model;
};
struct StepDone {
  WorkerId worker;
  StepResult result;
};
struct Saved {
  WorkerId worker;
  SavePoint save_point;
};
struct Drain {};
struct Abort {};
}  // namespace message

using Message = std::variant<message::Submit, message::Cancel, message::Wake, message::AddWorker,
                             message::ModelReady, message::WorkerLost, message::ModelFailed,
                             message::StepDone, message::Saved, message::Drain, message::Abort>;

// Messages from any thread to the batcher's.
class Inbox {
 public:
  explicit Inbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Put(Message message) ABSL_LOCKS_EXCLUDED(mu_);
  // Moves everything into the empty `*messages`.
  void Swap(std::vector<Message>* messages) ABSL_LOCKS_EXCLUDED(mu_);
  bool empty() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::function<void()> wake_;
  mutable absl::Mutex mu_;
  std::vector<Message> messages_ ABSL_GUARDED_BY(mu_);
};

class Batcher::Core {
 public:
  Core(BatcherOptions options, BatcherObserver* observer, std::function<void()> wake)
      : inbox_(std::move(wake)), options_(options), observer_(*observer) {}

  RequestId NextId() { return next_id_.fetch_add(1, std::memory_order_relaxed); }
  Inbox& inbox() { return inbox_; }

  void Tick(absl::Time now);
  absl::Time NextDeadline() const;
  std::vector<std::shared_ptr<WorkerLink>> TakeLost() { return std::exchange(lost_links_, {}); }
  bool idle() const { return requests_.empty(); }

 private:
  // --- admission.cc
  void Handle(message::Submit& submit);
  void Handle(message::Cancel& cancel);
  void Handle(message::Drain&);
  void Handle(message::Abort&);
  void Handle(message::ModelFailed& failed);
  void Admit(message::Submit& submit);
  void Refuse(message::Submit& submit, Rejection reason, const absl::Status& status);
  void ExpireDeadlines();
  void EndRequest(ActiveRequest* request, const absl::Status& status);
  void TellPositions(ModelQueue& queue);
  bool Serves(ModelId model) const;

  // --- placement.cc
  void Handle(message::AddWorker& added);
  void Handle(message::ModelReady& ready);
  void Handle(message::Wake& wake);
  void BeginSamples(ModelId model, ModelQueue& queue);
  bool BeginOne(Sample* sample, ModelId model);
  ActiveWorker* ChooseWorker(const Sample& sample, ModelId model);
  bool HasRoom(const Residence& home, const Sample& sample) const;
  // False while the worker may have died together with the one that made the sample a suspect.
  bool Trusts(const ActiveWorker& worker, const Sample& sample);
  void SendBegin(Sample* sample, ActiveWorker* worker);
  // The sample leaves its worker: its pages are free and its handle is dead.
  void Leave(Sample* sample);
  // It waits for another place: for a worker's, or first for its reader.
  void Return(Sample* sample);
  void SendDrops(ActiveWorker& worker);
  void GiveBackParked(ActiveWorker& worker);

  // --- planning.cc
  void Plan(ActiveWorker& worker);
  void CollectGroups(const ActiveWorker& worker);
  void SendStep(ActiveWorker& worker, const Group& group);
  void AddPictureRows(ActiveWorker& worker, const BatchKey& key, size_t limit, Step& step);
  void AddDecodeRows(ActiveWorker& worker, const BatchKey& key, size_t limit, Step& step);
  void AddPrefillRows(ActiveWorker& worker, const BatchKey& key, size_t limit, Step& step);
  void AddTextRow(Sample* sample, uint32_t prefill_tokens, Step& step);
  // False when the sample itself had to make room.
  bool TakePage(ActiveWorker& worker, Residence& home, Sample* sample);
  void NoteStarted(ActiveRequest* request);

  // --- results.cc
  void Handle(message::StepDone& done);
  void Handle(message::Saved& saved);
  void FinishStep(ActiveWorker& worker, const InFlight& sent, StepResult& result);
  void FinishRow(Sample* sample, StepKind kind, RowResult& row);
  void FinishEncode(Sample* sample, const RowResult& row);
  void FinishDenoise(Sample* sample, RowResult& row);
  void FinishPicture(Sample* sample, RowResult& row);
  void FinishText(Sample* sample, const RowResult& row);
  void NoteToken(Sample* sample);
  void EndSample(Sample* sample, SampleEnd end, uint32_t stop_id);
  Sample* Find(SampleHandle handle, const ActiveWorker& worker) const;

  // --- recovery.cc
  void Handle(message::WorkerLost& lost);
  void FailStep(ActiveWorker& worker, const InFlight& sent, const absl::Status& status);
  void Suspect(Sample* sample);

  void HandleMessages();
  void Report();
  ActiveWorker* FindWorker(WorkerId worker);

  Inbox inbox_;
  std::atomic<RequestId> next_id_{1};

  const BatcherOptions options_;
  BatcherObserver& observer_;
  absl::Time now_ = absl::InfinitePast();  // of the tick under way
  bool draining_ = false;
  uint32_t queued_ = 0;  // over all models
  SampleHandle next_handle_ = 1;
  uint64_t deaths_ = 0;
  absl::Time last_death_ = absl::InfinitePast();
  // When a parked sample gives its place back, or a suspect gets one.
  absl::Time next_change_ = absl::InfiniteFuture();

  absl::flat_hash_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  absl::btree_set<std::pair<absl::Time, RequestId>> deadlines_;
  absl::node_hash_map<ModelId, ModelQueue> models_;
  absl::flat_hash_map<WorkerId, std::unique_ptr<ActiveWorker>> workers_;
  absl::flat_hash_map<SampleHandle, Sample*> aboard_;
  std::vector<std::shared_ptr<WorkerLink>> lost_links_;

  // Of the tick under way; kept for their memory.
  std::vector<Message> messages_;
  std::vector<Group> groups_;
  std::vector<SampleHandle> saves_;
  std::vector<Sample*> decoding_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_CORE_H_
