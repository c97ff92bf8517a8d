// One worker of the fleet, through all its lives.
#ifndef HANMO_SERVER_WORKER_LINK_MEMBER_H_
#define HANMO_SERVER_WORKER_LINK_MEMBER_H_

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/worker_link/child.h"
#include "server/worker_link/fleet.h"
#include "server/worker_link/session.h"

namespace hanmo {

// Counts the workers that can't have a model; the last one makes it failed for the batcher.
class Fleet::FailureBoard {
 public:
  FailureBoard(size_t workers, WorkerEvents* events) : workers_(workers), events_(events) {}
  void Note(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);
  void Forget(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const size_t workers_;
  WorkerEvents* const events_;
  absl::Mutex mu_;
  std::map<ModelId, size_t> failed_ ABSL_GUARDED_BY(mu_);
};

// The models that every worker should have. Thread-safe.
class Fleet::ModelList {
 public:
  explicit ModelList(std::vector<FleetModel> models) : models_(std::move(models)) {}
  void Add(const FleetModel& model) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<FleetModel> All() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::vector<FleetModel> models_ ABSL_GUARDED_BY(mu_);
};

// Its thread repeats: start or dial the worker, wait for its end, report, wait for the back-off.
// Events of a session come on gRPC's threads, in order, and end with OnClosed.
class Fleet::Member final : private SessionListener {
 public:
  struct Place {
    WorkerId id = 0;
    std::string device;   // spawn mode
    std::string address;  // attach mode
  };
  // The arguments outlive the member.
  struct Context {
    const FleetOptions* options;
    const ModelList* models;
    WorkerEvents* events;
    FleetObserver* observer;
    FailureBoard* failures;
  };

  Member(Place place, Context context);
  // Stop and Join come first when Start was called.
  ~Member() override = default;

  void Start();
  // See Fleet. Unload tells whether the worker will answer.
  void Load(const FleetModel& model) ABSL_LOCKS_EXCLUDED(mu_);
  void Forget(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);
  bool Unload(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);
  // Asks the worker to end, without waiting.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for the end; at `kill_at` a spawned worker is killed.
  void Join(absl::Time kill_at) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Live() ABSL_LOCKS_EXCLUDED(mu_);
  // One life of the worker; returns how it ended.
  std::string LiveOnce() ABSL_LOCKS_EXCLUDED(mu_);
  std::string LiveSpawned() ABSL_LOCKS_EXCLUDED(mu_);
  std::string LiveAttached() ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> SpawnArguments() const;
  void BlameModelBeingLoaded(const std::string& reason) ABSL_LOCKS_EXCLUDED(mu_);
  void Fail(ModelId model, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void Ask(const FleetModel& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  void OnHello(const WorkerHello& hello) override;
  void OnLoaded(ModelId model, const absl::StatusOr<LoadedModel>& loaded) override;
  void OnUnloaded(ModelId model) override;
  void OnStepDone(StepResult result) override;
  void OnSaved(SavePoint save_point) override;
  void OnClosed(const absl::Status& status) override;

  const Place place_;
  const Context context_;
  std::thread thread_;

  // Of the session under way; touched by its callbacks, and by the thread between sessions.
  bool up_ = false;
  bool was_up_ = false;

  absl::Mutex mu_;
  // Of the session under way.
  bool greeted_ ABSL_GUARDED_BY(mu_) = false;
  bool deterministic_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<ModelId> loading_ ABSL_GUARDED_BY(mu_);  // asked for, not answered yet, in order
  std::set<ModelId> asked_ ABSL_GUARDED_BY(mu_);      // that it has, or will have
  std::set<ModelId> leaving_ ABSL_GUARDED_BY(mu_);    // likewise, but forgotten
  // Of all sessions.
  std::set<ModelId> failed_ ABSL_GUARDED_BY(mu_);  // never tried again
  std::map<ModelId, int> deaths_while_loading_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = true;
  absl::Status close_status_ ABSL_GUARDED_BY(mu_);
  Child* child_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_MEMBER_H_
