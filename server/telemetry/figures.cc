#include "server/telemetry/figures.h"

#include <utility>

#include "absl/time/clock.h"

namespace hanmo {

void Figures::AddModel(ModelId model, const ModelLabel& label) {
  absl::MutexLock lock(&mu_);
  std::unique_ptr<ModelTotals>& totals = by_name_[label.name];
  if (totals == nullptr) totals = std::make_unique<ModelTotals>();
  by_id_[model] = totals.get();
}

void Figures::RemoveModel(ModelId model) {
  absl::MutexLock lock(&mu_);
  by_id_.erase(model);
  costs_.erase(model);
}

ModelTotals& Figures::TotalsOf(ModelId model) const {
  absl::ReaderMutexLock lock(&mu_);
  return *by_id_.at(model);
}

void Figures::RequestDone(std::optional<ModelId> model, absl::StatusCode code,
                          absl::Duration total) {
  if (model) TotalsOf(*model).AddRequest(code == absl::StatusCode::kOk, total, absl::Now());
}

void Figures::ObservePhase(ModelId model, FrontPhase phase, absl::Duration time) {
  AddPhase(phase, time, &TotalsOf(model));
}

void Figures::AddPhase(FrontPhase phase, absl::Duration time, ModelTotals* totals) {
  if (phase == FrontPhase::kFirstPreview) return;
  phase == FrontPhase::kTokenize ? totals->AddInput(time) : totals->AddOutput(time);
}

void Figures::OnStarted(ModelId model, absl::Duration queued) { TotalsOf(model).AddQueue(queued); }

void Figures::OnStep(WorkerId, const Step& step, const StepResult& result) {
  if (result.status.ok()) TotalsOf(step.model).AddStep(step.rows.size(), result.device_time);
}

void Figures::OnCosts(ModelId model, std::vector<StepCosts::Description> costs) {
  absl::MutexLock lock(&mu_);
  costs_[model] = std::move(costs);
}

void Figures::OnOverload(bool overloaded) {
  overloaded_ = overloaded;
  if (overload_changed_) overload_changed_();
}

std::vector<StepCosts::Description> Figures::Costs(ModelId model) const {
  absl::MutexLock lock(&mu_);
  const auto found = costs_.find(model);
  return found == costs_.end() ? std::vector<StepCosts::Description>() : found->second;
}

ModelTotals* Figures::FindTotals(const std::string& name) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second.get();
}

}  // namespace hanmo
