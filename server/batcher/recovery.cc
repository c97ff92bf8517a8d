// Dead workers and failed steps. Who was in a step when it happened is suspected and runs alone, so
// that the one to blame takes nobody along the second time.
#include <algorithm>
#include <utility>

#include "absl/container/btree_map.h"
#include "server/batcher/core.h"

namespace hanmo {

void Batcher::Core::Handle(message::WorkerLost& lost) {
  auto node = workers_.extract(lost.worker);
  if (node.empty()) return;
  ActiveWorker& worker = *node.mapped();
  ++deaths_;
  last_death_ = now_;
  // The requests that were in a step, and whether that was another try after an earlier death: the
  // workers of one request may die together.
  absl::btree_map<RequestId, bool> struck;
  const auto strike = [&](const InFlight& sent) {
    for (const Row& row : sent.step.rows) {
      Sample* sample = Find(row.sample, worker);
      if (sample == nullptr) continue;
      Suspect(sample);
      const ActiveRequest& request = *sample->request;
      struck[request.id] |= request.usage.deaths > 0 && sample->begun_after >= request.last_death;
    }
  };
  std::for_each(worker.in_flight.begin(), worker.in_flight.end(), strike);
  if (worker.sliced && worker.sliced->at) strike(*worker.sliced->at);
  for (const auto& [id, again] : struck) {
    ActiveRequest* request = requests_.at(id).get();
    request->last_death = deaths_;
    ++request->usage.deaths;
    if (!again) continue;
    EndRequest(request, absl::InternalError("the request was in a step at two deaths of a worker"));
  }
  while (!worker.aboard.empty()) {
    Sample* sample = worker.aboard.back();
    Leave(sample);
    Return(sample);
  }
  for (const auto& [model, home] : worker.models) {
    models_[model].places.erase({home.listed_load, worker.id});
    if (home.pages.total() > 0) observer_.OnPages(worker.id, model, 0, 0);
  }
  lost_links_.push_back(std::move(worker.link));
}

void Batcher::Core::FailStep(ActiveWorker& worker, const InFlight& sent,
                             const absl::Status& status) {
  // Nobody is to blame for a batch that is too large, nor for a chunk of a prompt.
  const bool no_memory = absl::IsResourceExhausted(status);
  const bool cut = no_memory && CutPrefill(worker, sent);
  const bool too_large = no_memory && !cut && sent.step.rows.size() > 1;
  if (too_large) HalveBatch(worker, sent);
  for (const Row& row : sent.step.rows) {
    Sample* sample = Find(row.sample, worker);
    if (sample == nullptr) continue;
    if (sent.step.rows.size() == 1 && !cut) {
      EndRequest(sample->request, status);
    } else {
      if (!too_large && !cut) Suspect(sample);
      Leave(sample);
      Return(sample);
    }
  }
}

bool Batcher::Core::CutPrefill(ActiveWorker& worker, const InFlight& sent) {
  const auto home = worker.models.find(sent.step.model);
  const uint32_t tokens = sent.load.prefill_tokens;
  if (home == worker.models.end() || tokens <= kLeastPrefill) return false;
  uint32_t& most = home->second.most_prefill;
  // Of steps that were under way together the first one counts.
  if (most < sent.most_prefill) return true;
  // A source can't be cut: it was as long although less was allowed.
  if (tokens > most) return false;
  most = std::max(kLeastPrefill, tokens / 2);
  return true;
}

void Batcher::Core::HalveBatch(ActiveWorker& worker, const InFlight& sent) {
  // Of steps that were under way together the first one counts.
  size_t& most = worker.most_samples.try_emplace(sent.cost, SIZE_MAX).first->second;
  most = std::min(most, (sent.step.rows.size() + 1) / 2);
}

size_t Batcher::Core::MostSamples(const ActiveWorker& worker, const CostKey& key) const {
  auto found = worker.most_samples.find(key);
  return found == worker.most_samples.end() ? SIZE_MAX : found->second;
}

void Batcher::Core::Suspect(Sample* sample) {
  sample->suspect_until = std::max(sample->PlannedProgress(), sample->Progress()) + 1;
}

}  // namespace hanmo
