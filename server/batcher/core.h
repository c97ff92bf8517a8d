// The inside of Batcher. One class, six rooms:
//   admission.cc   into the queue, out of it, and every end of a request
//   placement.cc   which sample begins on which worker, and gives its place back
//   planning.cc    which step runs next, and with whom
//   sharing.cc     what texts need not compute: shared pages, guessed tokens
//   results.cc     what came back
//   recovery.cc    dead workers and failed steps
#ifndef HANMO_SERVER_BATCHER_CORE_H_
#define HANMO_SERVER_BATCHER_CORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
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
  absl::Status reason;
};
struct Wake {
  RequestId id;
};
struct AddWorker {
  WorkerId worker;
  std::shared_ptr<WorkerLink> link;
  std::string device;
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
struct RemoveModel {
  ModelId model;
  std::function<void()> removed;
};
struct InheritCosts {
  ModelId from;
  ModelId to;
};
struct RestModel {
  ModelId model;
  std::function<void(bool)> done;
  std::function<void()> wanted;
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
                             message::RemoveModel, message::InheritCosts, message::RestModel,
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
  void EndRequests(ModelId model, const absl::Status& status);
  void Admit(message::Submit& submit);
  void Refuse(message::Submit& submit, Rejection reason, const absl::Status& status);
  void ExpireDeadlines();
  // Brings requests forward that must run now to meet their deadline.
  void PromoteUrgent();
  void Rerank(ActiveRequest* request, Rank rank);
  // Predicted device time that the request still needs.
  absl::Duration Remaining(const ActiveRequest& request) const;
  // OK, or why the request can't end before its deadline.
  absl::Status CheckDeadline(ActiveRequest* request, const ModelQueue& queue);
  // Where that needs fewer steps and the client consents, takes as many as fit.
  absl::Status FitDeadline(ActiveRequest* request, const ModelQueue& queue,
                           const Request& submitted);
  // Predicted time until the first step of a request that has `work` before it in the queue.
  absl::Duration Wait(const ActiveRequest& request, const ModelQueue& queue, absl::Duration work);
  void SetTenant(ActiveRequest* request, const std::string& tenant);
  // And its cost; what it will be charged is not charged yet.
  void SetRank(ActiveRequest* request, int32_t priority);
  // What waits and runs before `request`, in device time of one worker.
  absl::Duration WorkAhead(const ActiveRequest& request, const ModelQueue& queue);
  absl::Duration QueuedWork() const;
  void EndRequest(ActiveRequest* request, const absl::Status& status);
  // What the end tells about the prediction made at admission.
  void NoteDelay(const ActiveRequest& request, ModelQueue& queue, const absl::Status& status);
  void TellPositions(ModelQueue& queue);
  bool Serves(ModelId model) const;
  uint32_t Workers(const ModelQueue& queue) const;

  // --- placement.cc
  void Handle(message::AddWorker& added);
  void Handle(message::ModelReady& ready);
  void Handle(message::RemoveModel& remove);
  void Handle(message::InheritCosts& inherit);
  void Handle(message::RestModel& rest);
  // Nothing of the model is aboard any worker.
  void TakeFromWorkers(ModelId model);
  void Handle(message::Wake& wake);
  void BeginSamples(ModelQueue& queue);
  bool BeginOne(Sample* sample, ModelQueue& queue);
  ActiveWorker* ChooseWorker(const Sample& sample, ModelQueue& queue);
  bool HasRoom(const ActiveWorker& worker, const Residence& home, const Sample& sample);
  // For pictures: whether it would be in the next batch of its size.
  bool WouldRun(const ActiveWorker& worker, const Sample& sample) const;
  // For the static policy: the worker gathers a batch for which the sample is right.
  bool Gathers(const ActiveWorker& worker, const Sample& sample) const;
  // False while the worker may have died together with the one that made the sample a suspect.
  bool Trusts(const ActiveWorker& worker, const Sample& sample);
  void SendBegin(Sample* sample, ActiveWorker* worker);
  // The sample leaves its worker: its pages are free and its handle is dead.
  void Leave(Sample* sample);
  // It waits for another place: for a worker's, or first for its reader.
  void Return(Sample* sample);
  void SendDrops(ActiveWorker& worker);
  // Parks or unparks the samples of the request, as its reader is.
  void HeedReader(ActiveRequest* request);
  void GiveBackParked();
  // The worker's load changed by so many seconds.
  void AddLoad(ActiveWorker& worker, double seconds);
  void Touch(ActiveWorker& worker);

  // --- planning.cc
  void Plan(ActiveWorker& worker);
  // Puts the sample where it waits for the step that it needs next, if any.
  void Line(Sample* sample);
  // Of the lane's first text or picture, of a lane that has both.
  static Rank FirstOf(const Lane& lane, bool texts);
  // Of the lane's first sample, as far as it is the lane's turn.
  Rank TurnOf(const ActiveWorker& worker, const Lane& lane) const;
  // Rows of the network in one step of the key, at most.
  uint32_t MostRows(const ActiveWorker& worker, const BatchKey& key) const;
  // Prompt tokens for a step in which so many texts decode and so many wait for their first token.
  uint32_t PrefillBudget(const ActiveWorker& worker, const BatchKey& key, size_t decoding,
                         size_t prefilling) const;
  // What could run now, and where: a lane each, null for the step under way in slices.
  void CollectCandidates(ActiveWorker& worker);
  // As a step of texts, or of pictures, where the lane has both.
  void SendStep(ActiveWorker& worker, Lane& lane, bool as_texts);
  // Whether the worker has, or had until this tick, something to run.
  bool Follows(const ActiveWorker& worker) const;
  void CutIntoSlices(ActiveWorker& worker, Rank rank, InFlight* sent);
  void SendSlice(ActiveWorker& worker);
  // How long a picture step may hold the worker at a time; zero: to its end.
  absl::Duration SliceBudget(const ActiveWorker& worker) const;
  // Forgets a sliced step of which nobody waits for the result.
  void ForgetSliced(ActiveWorker& worker);
  void AddPictureRows(Lane& lane, size_t most_samples, uint32_t most_rows, InFlight& sent);
  void AddDecodeRows(size_t most, InFlight& sent);
  void AddPrefillRows(ActiveWorker& worker, Lane& lane, size_t most, InFlight& sent);
  void FillTextRow(Sample* sample, Row& row, InFlight& sent);
  void NoteStarted(ActiveRequest* request);

  // --- sharing.cc
  // Prompt and emitted tokens in one run; valid until the next call.
  absl::Span<const uint32_t> Known(const Sample& sample);
  PagePool::Match FindPrefix(const Residence& home, const Sample& sample);
  bool HasPages(const ActiveWorker& worker, const Residence& home, const Sample& sample);
  // A text aboard is about to publish this page of the sample: it need not be run twice.
  bool IsBeingPrefilled(const ActiveWorker& worker, const Residence& home, const Sample& sample,
                        size_t page) const;
  // Predicted, of the tokens that the worker has no pages of.
  double PrefillSeconds(const ActiveWorker& worker, const Residence& home, const Sample& sample);
  // At Begin: pages for all known tokens, as many of them shared as can be.
  void TakeFirstPages(Sample* sample);
  // Pages that the results so far have filled.
  void PublishPages(Sample* sample);
  // Pages for the next token, whatever the rows under way emit. False when the sample itself had to
  // make room.
  bool TakePages(Sample* sample);
  // How many tokens the next decode row may guess; there are pages for them.
  uint32_t GrantDrafts(Sample* sample);

  // --- results.cc
  void Handle(message::StepDone& done);
  void Handle(message::Saved& saved);
  // True when the step has not ended yet, or there was nothing left to do; else `*sent` and
  // `*result` are those of the whole step.
  bool FinishSlice(ActiveWorker& worker, InFlight* sent, StepResult* result);
  void FinishStep(ActiveWorker& worker, const InFlight& sent, StepResult& result);
  void Learn(ActiveWorker& worker, const InFlight& sent, StepLoad load, const StepResult& result);
  void ChargeMemory(Sample* sample, const InFlight& sent, StepLoad load, uint64_t peak_bytes);
  void FinishRow(Sample* sample, StepKind kind, const Row& sent, RowResult& row);
  void FinishEncode(Sample* sample, const RowResult& row);
  void FinishDenoise(Sample* sample, RowResult& row);
  void FinishPicture(Sample* sample, RowResult& row);
  void FinishText(Sample* sample, const Row& sent, const RowResult& row);
  void TakeTokens(Sample* sample, const RowResult& row);
  void NoteToken(Sample* sample);
  void EndSample(Sample* sample, SampleEnd end, uint32_t stop_id);
  Sample* Find(SampleHandle handle, const ActiveWorker& worker) const;

  // --- recovery.cc
  void Handle(message::WorkerLost& lost);
  void FailStep(ActiveWorker& worker, const InFlight& sent, const absl::Status& status);
  // A step of this shape did not fit the device's memory: from now on it has half of the samples.
  void HalveBatch(ActiveWorker& worker, const InFlight& sent);
  // The same for prompt tokens; false if fewer of them are no help.
  static bool CutPrefill(ActiveWorker& worker, const InFlight& sent);
  // Samples in a step of the key, at most.
  size_t MostSamples(const ActiveWorker& worker, const CostKey& key) const;
  void Suspect(Sample* sample);

  void HandleMessages();
  void TellOverload();
  void Report();
  ActiveWorker* FindWorker(WorkerId worker);

  Inbox inbox_;
  std::atomic<RequestId> next_id_{1};

  const BatcherOptions options_;
  BatcherObserver& observer_;
  absl::Time now_ = absl::InfinitePast();  // of the tick under way
  bool draining_ = false;
  bool overloaded_ = false;
  uint32_t queued_ = 0;         // over all models
  absl::Duration queued_work_;  // predicted, of them
  uint64_t deaths_ = 0;
  absl::Time last_death_ = absl::InfinitePast();
  // When a suspect may get a place.
  absl::Time next_change_ = absl::InfiniteFuture();
  FairClock fair_clock_;

  absl::flat_hash_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  absl::btree_set<std::pair<absl::Time, RequestId>> deadlines_;
  // Latest starts of those that were not brought forward yet.
  absl::btree_set<std::pair<absl::Time, RequestId>> urgent_;
  // Parked samples and when they give their place back, in order; also of some that are not parked
  // any more.
  std::deque<std::pair<absl::Time, SampleHandle>> parked_;
  absl::node_hash_map<ModelId, ModelQueue> models_;
  absl::node_hash_map<std::string, StepCosts> costs_;  // by kind of device
  absl::flat_hash_map<WorkerId, std::unique_ptr<ActiveWorker>> workers_;
  AboardTable aboard_;
  std::vector<std::shared_ptr<WorkerLink>> lost_links_;

  // Of the tick under way; kept for their memory.
  std::vector<Message> messages_;
  std::vector<WorkerId> touched_;
  std::vector<Candidates> candidates_;
  std::vector<Lane*> lanes_;
  std::vector<SampleHandle> saves_;
  std::vector<Sample*> rows_;
  std::vector<uint32_t> known_;
};

// Requests of different salts share no pages. What a source's pages hold depends on all of it, also
// on what follows the page: so two sources are told apart by their salts, hashes of 64 bits with a
// seed of this process.
uint64_t SaltOf(const std::string& tenant, const SampleJob& job);

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_CORE_H_
