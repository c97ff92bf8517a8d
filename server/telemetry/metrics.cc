#include "server/telemetry/metrics.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "server/batcher/non_finite.h"
#include "server/telemetry/families.h"
#include "server/telemetry/status_codes.h"

namespace hanmo {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;

namespace {

constexpr size_t kMaxCostSeries = 32;  // of one model, at a time
constexpr std::array<const char*, 5> kStepKinds = {"text_encode", "denoise", "vae_decode", "text",
                                                   "picture_encode"};

constexpr std::array<const char*, 3> kTextEnds = {"eos", "stop", "length"};  // by SampleEnd

size_t Index(StepKind kind) { return static_cast<size_t>(kind); }

// Versions of a model share a gauge, which shows their sum.
void Change(Gauge* gauge, uint32_t value, uint32_t* shown) {
  gauge->Increment(double{1} * value - *shown);
  *shown = value;
}

void Count(Counter* counter, double amount) {
  if (amount > 0) counter->Increment(amount);
}

}  // namespace

struct Metrics::Families : MetricFamilies {
  using MetricFamilies::MetricFamilies;
  std::array<Counter*, 5> rejected = {};  // by Rejection, then what the front end refused
  Histogram* tick = nullptr;
  Gauge* overload = nullptr;
  std::array<Counter*, kCodes> unknown_model = {};  // requests by code
  Counter* unknown_load_failures = nullptr;
};

struct Metrics::ModelSeries {
  std::array<Counter*, kCodes> requests;
  Histogram *request_seconds, *queue, *tokenize, *prefill, *picture_encode, *send;
  Histogram *first_token, *inter_token, *decode, *output_token, *first_preview;
  Histogram *prompt_length, *completion_length, *picture_pixels;
  std::array<Counter*, kTextEnds.size()> texts;
  Counter *nonfinite, *load_failures;
  std::array<Histogram*, kStepKinds.size()> step_seconds;
  std::array<Histogram*, kStepKinds.size()> batch_size;
  Counter *cancelled, *missed_waiting, *missed_running;
  Counter *prompt_tokens, *completion_tokens, *pictures, *steps, *sliced_steps, *steps_redone,
      *steps_wasted, *previews_dropped, *expert_wait;
  std::string name;
  ModelTotals* totals;
  Counter *prefix_hit_tokens, *preempted, *draft_tokens, *draft_tokens_accepted;
  Gauge *waiting, *running, *load_seconds;
  std::array<Gauge*, std::size(kModelStates)> states;
  std::vector<Gauge*> pages_used, pages_total;  // by WorkerId
};

// Of one kind and size of steps.
struct Metrics::CostGauges {
  Gauge *knee, *one_row, *knee_rows, *one_row_bytes, *knee_rows_bytes;
};

struct Metrics::WorkerSeries {
  Counter *restarts, *idle, *failed_for_memory, *failed;
  Gauge *up, *memory_used, *memory_total;
  bool was_up = false;  // touched by the fleet's thread of this worker
};

Metrics::Metrics(const std::vector<ModelLabel>& models, uint32_t workers,
                 const std::string& version)
    : registry_(std::make_shared<prometheus::Registry>()),
      families_(std::make_unique<Families>(registry_.get())),
      calls_(std::make_unique<CallMetrics>(families_.get())),
      tenants_(std::make_unique<TenantMetrics>(families_.get())) {
  Families& f = *families_;
  f.build_info.Add({{"version", version}}).Set(1);
  const std::array<const char*, 5> reasons = {"queue_full", "draining", "no_worker", "deadline",
                                              "invalid"};
  for (size_t i = 0; i < reasons.size(); ++i)
    f.rejected[i] = &f.rejections.Add({{"reason", reasons[i]}});
  f.tick = &f.tick_seconds.Add({}, FineBuckets());
  f.overload = &f.overloaded.Add({});
  for (size_t code = 0; code < kCodes; ++code) {
    f.unknown_model[code] =
        &f.requests.Add({{"model", ""}, {"task", ""}, {"code", CodeName(code)}});
  }
  f.unknown_load_failures = &f.load_failures.Add({{"model", ""}});
  for (uint32_t worker = 0; worker < workers; ++worker) {
    const prometheus::Labels label = {{"worker", absl::StrCat(worker)}};
    const std::string name = label.at("worker");
    workers_.push_back({&f.worker_restarts.Add(label), &f.device_idle_seconds.Add(label),
                        &f.failed_steps.Add({{"worker", name}, {"reason", "memory"}}),
                        &f.failed_steps.Add({{"worker", name}, {"reason", "error"}}),
                        &f.worker_up.Add(label), &f.memory_used.Add(label),
                        &f.memory_total.Add(label)});
  }
  for (size_t i = 0; i < models.size(); ++i) AddModel(static_cast<ModelId>(i), models[i]);
}

Metrics::~Metrics() = default;

void Metrics::AddModel(ModelId model, const ModelLabel& label) {
  Figures::AddModel(model, label);
  absl::MutexLock lock(&mu_);
  std::unique_ptr<ModelSeries>& series = by_name_[label.name];
  if (series == nullptr) series = MakeSeries(label);
  by_id_[model] = series.get();
}

void Metrics::RemoveModel(ModelId model) {
  Figures::RemoveModel(model);
  absl::MutexLock lock(&mu_);
  const auto found = by_id_.find(model);
  if (found == by_id_.end()) return;
  const ModelSeries& series = *found->second;
  Shown& shown = shown_[model];
  ShowLoad(series, 0, 0, &shown);
  for (WorkerId worker = 0; worker < shown.pages_used.size(); ++worker) {
    ShowPages(series, worker, 0, 0, &shown);
  }
  ShowCosts(model, {});
  by_id_.erase(model);
  shown_.erase(model);
}

const Metrics::ModelSeries& Metrics::Series(ModelId model) const {
  absl::ReaderMutexLock lock(&mu_);
  return *by_id_.at(model);
}

const Metrics::ModelSeries& Metrics::Observed(ModelId model) {
  if (model != last_model_) {
    last_series_ = &Series(model);
    last_model_ = model;
  }
  return *last_series_;
}

const Metrics::ModelSeries* Metrics::SeriesOf(const std::string& name) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second.get();
}

std::unique_ptr<Metrics::ModelSeries> Metrics::MakeSeries(const ModelLabel& model) {
  Families& f = *families_;
  const prometheus::Labels label = {{"model", model.name}};
  auto series = std::make_unique<ModelSeries>();
  ModelSeries& s = *series;
  for (size_t code = 0; code < kCodes; ++code) {
    s.requests[code] =
        &f.requests.Add({{"model", model.name}, {"task", model.task}, {"code", CodeName(code)}});
  }
  s.request_seconds = &f.request_seconds.Add(label, RequestBuckets());
  s.queue = &f.queue_seconds.Add(label, RequestBuckets());
  s.tokenize = &f.tokenize_seconds.Add(label, FineBuckets());
  s.prefill = &f.prefill_seconds.Add(label, StepBuckets());
  s.picture_encode = &f.picture_encode_seconds.Add(label, FineBuckets());
  s.send = &f.send_seconds.Add(label, FineBuckets());
  s.first_token = &f.first_token_seconds.Add(label, StepBuckets());
  s.inter_token = &f.inter_token_seconds.Add(label, TokenBuckets());
  s.decode = &f.decode_seconds.Add(label, RequestBuckets());
  s.output_token = &f.output_token_seconds.Add(label, TokenBuckets());
  s.first_preview = &f.first_preview_seconds.Add(label, StepBuckets());
  s.prompt_length = &f.prompt_length.Add(label, LengthBuckets());
  s.completion_length = &f.completion_length.Add(label, LengthBuckets());
  s.picture_pixels = &f.picture_pixels.Add(label, PixelBuckets());
  for (size_t end = 0; end < kTextEnds.size(); ++end) {
    s.texts[end] = &f.texts.Add({{"model", model.name}, {"finish_reason", kTextEnds[end]}});
  }
  s.nonfinite = &f.nonfinite.Add(label);
  s.load_failures = &f.load_failures.Add(label);
  s.step_seconds[Index(StepKind::kTextEncode)] = &f.text_encode_seconds.Add(label, StepBuckets());
  s.step_seconds[Index(StepKind::kDenoise)] = &f.step_seconds.Add(label, StepBuckets());
  s.step_seconds[Index(StepKind::kVaeDecode)] = &f.vae_decode_seconds.Add(label, StepBuckets());
  s.step_seconds[Index(StepKind::kText)] = s.step_seconds[Index(StepKind::kDenoise)];
  s.step_seconds[Index(StepKind::kPictureEncode)] = s.step_seconds[Index(StepKind::kTextEncode)];
  for (size_t kind = 0; kind < kStepKinds.size(); ++kind) {
    s.batch_size[kind] =
        &f.batch_size.Add({{"model", model.name}, {"step", kStepKinds[kind]}}, SizeBuckets());
  }
  s.cancelled = &f.cancelled.Add(label);
  s.missed_waiting = &f.deadline_missed.Add({{"model", model.name}, {"phase", "waiting"}});
  s.missed_running = &f.deadline_missed.Add({{"model", model.name}, {"phase", "running"}});
  s.prompt_tokens = &f.prompt_tokens.Add(label);
  s.completion_tokens = &f.completion_tokens.Add(label);
  s.pictures = &f.pictures.Add(label);
  s.steps = &f.steps.Add(label);
  s.sliced_steps = &f.sliced_steps.Add(label);
  s.steps_redone = &f.steps_redone.Add(label);
  s.steps_wasted = &f.steps_wasted.Add(label);
  s.previews_dropped = &f.previews_dropped.Add(label);
  s.expert_wait = &f.expert_wait_seconds.Add(label);
  s.name = model.name;
  s.totals = FindTotals(model.name);
  s.prefix_hit_tokens = &f.prefix_hit_tokens.Add(label);
  s.preempted = &f.preempted.Add(label);
  s.draft_tokens = &f.draft_tokens.Add(label);
  s.draft_tokens_accepted = &f.draft_tokens_accepted.Add(label);
  s.waiting = &f.waiting.Add(label);
  s.running = &f.running.Add(label);
  s.load_seconds = &f.load_seconds.Add(label);
  for (size_t state = 0; state < std::size(kModelStates); ++state) {
    s.states[state] =
        &f.model_state.Add({{"model", model.name}, {"state", std::string(kModelStates[state])}});
  }
  for (uint32_t worker = 0; worker < workers_.size() && model.task == "text"; ++worker) {
    const prometheus::Labels place = {{"model", model.name}, {"worker", absl::StrCat(worker)}};
    s.pages_used.push_back(&f.pages_used.Add(place));
    s.pages_total.push_back(&f.pages_total.Add(place));
  }
  return series;
}

void Metrics::RequestDone(std::optional<ModelId> model, absl::StatusCode code,
                          absl::Duration total) {
  const size_t index = CodeIndex(code);
  if (!model) return families_->unknown_model[index]->Increment();
  const ModelSeries& s = Series(*model);
  s.totals->AddRequest(code == absl::StatusCode::kOk, total, absl::Now());
  s.requests[index]->Increment();
  s.request_seconds->Observe(absl::ToDoubleSeconds(total));
}

void Metrics::TenantDone(absl::string_view tenant, absl::StatusCode code,
                         absl::Duration device_time) {
  tenants_->RequestDone(tenant, code, device_time);
}

void Metrics::RefusedInvalid() { families_->rejected[4]->Increment(); }

void Metrics::ObservePhase(ModelId model, FrontPhase phase, absl::Duration time) {
  const ModelSeries& s = Series(model);
  AddPhase(phase, time, s.totals);
  Histogram* histogram = phase == FrontPhase::kTokenize        ? s.tokenize
                         : phase == FrontPhase::kFirstPreview  ? s.first_preview
                         : phase == FrontPhase::kPictureEncode ? s.picture_encode
                                                               : s.send;
  histogram->Observe(absl::ToDoubleSeconds(time));
}

void Metrics::ModelLoaded(const std::string& name, absl::Duration time) {
  const ModelSeries* series = SeriesOf(name);
  if (series != nullptr) series->load_seconds->Set(absl::ToDoubleSeconds(time));
}

void Metrics::ModelLoadFailed(const std::string& name) {
  const ModelSeries* series = SeriesOf(name);
  (series == nullptr ? families_->unknown_load_failures : series->load_failures)->Increment();
}

void Metrics::SetModelState(const std::string& name, absl::string_view state) {
  const ModelSeries* series = SeriesOf(name);
  if (series == nullptr) return;
  for (size_t i = 0; i < std::size(kModelStates); ++i) {
    series->states[i]->Set(kModelStates[i] == state ? 1 : 0);
  }
}

void Metrics::WorkerUp(WorkerId worker, uint64_t memory) {
  WorkerSeries& s = workers_.at(worker);
  if (s.was_up) s.restarts->Increment();
  s.was_up = true;
  s.up->Set(1);
  s.memory_total->Set(static_cast<double>(memory));
}

void Metrics::WorkerLost(WorkerId worker) { workers_.at(worker).up->Set(0); }

void Metrics::OnRejected(ModelId, Rejection reason) {
  families_->rejected[static_cast<size_t>(reason)]->Increment();
}

void Metrics::OnStarted(ModelId model, absl::Duration queued) {
  const ModelSeries& s = Observed(model);
  s.totals->AddQueue(queued);
  s.queue->Observe(absl::ToDoubleSeconds(queued));
}

void Metrics::OnStep(WorkerId worker, const Step& step, const StepResult& result) {
  if (!result.status.ok()) {
    const WorkerSeries& w = workers_[worker];
    return (absl::IsResourceExhausted(result.status) ? w.failed_for_memory : w.failed)->Increment();
  }
  const ModelSeries& s = Observed(step.model);
  s.step_seconds[Index(step.kind)]->Observe(absl::ToDoubleSeconds(result.device_time));
  s.totals->AddStep(step.rows.size(), result.device_time);
  s.batch_size[Index(step.kind)]->Observe(static_cast<double>(step.rows.size()));
  WorkerSeries& w = workers_[worker];
  w.memory_used->Set(static_cast<double>(result.memory.used));
  if (result.idle_time > absl::ZeroDuration()) {
    w.idle->Increment(absl::ToDoubleSeconds(result.idle_time));
  }
  if (step.budget > absl::ZeroDuration()) s.sliced_steps->Increment();
  Count(s.expert_wait, absl::ToDoubleSeconds(result.weights_time));
  uint32_t drafted = 0, accepted = 0;
  for (const RowResult& row : result.rows) {
    if (!row.status.ok() && absl::StartsWith(row.status.message(), kNonFinite)) {
      s.nonfinite->Increment();
    }
    drafted += row.drafted;
    if (row.tokens.size() > 1) accepted += static_cast<uint32_t>(row.tokens.size() - 1);
  }
  if (drafted == 0) return;
  Count(s.draft_tokens, drafted);
  Count(s.draft_tokens_accepted, accepted);
}

void Metrics::OnPrefixHit(ModelId model, uint32_t tokens) {
  Count(Observed(model).prefix_hit_tokens, tokens);
}

void Metrics::OnPrefill(ModelId model, absl::Duration time, uint32_t) {
  Observed(model).prefill->Observe(absl::ToDoubleSeconds(time));
}

void Metrics::OnFirstToken(ModelId model, absl::Duration since_arrival) {
  Observed(model).first_token->Observe(absl::ToDoubleSeconds(since_arrival));
}

void Metrics::OnInterToken(ModelId model, absl::Duration gap) {
  Observed(model).inter_token->Observe(absl::ToDoubleSeconds(gap));
}

void Metrics::OnTextEnd(ModelId model, const TextEnd& end) {
  const ModelSeries& s = Observed(model);
  s.texts[static_cast<size_t>(end.end)]->Increment();
  s.prompt_length->Observe(end.prompt_tokens);
  s.completion_length->Observe(end.tokens);
  s.decode->Observe(absl::ToDoubleSeconds(end.decode));
  if (end.tokens > 1) s.output_token->Observe(absl::ToDoubleSeconds(end.decode) / (end.tokens - 1));
}

void Metrics::OnPreempted(ModelId model) { Observed(model).preempted->Increment(); }

void Metrics::OnCancelled(ModelId model) { Observed(model).cancelled->Increment(); }

void Metrics::OnDeadlineMissed(ModelId model, bool was_running) {
  (was_running ? Observed(model).missed_running : Observed(model).missed_waiting)->Increment();
}

void Metrics::OnDone(ModelId model, absl::StatusCode code, const Usage& usage, absl::Duration) {
  const ModelSeries& s = Observed(model);
  Count(s.prompt_tokens, usage.prompt_tokens);
  Count(s.completion_tokens, usage.completion_tokens);
  Count(s.pictures, usage.pictures);
  Count(s.steps, usage.steps);
  Count(s.steps_redone, usage.steps_redone);
  const uint32_t lost = code == absl::StatusCode::kOk ? 0 : usage.steps;
  Count(s.steps_wasted, usage.steps_redone + lost);
}

void Metrics::PicturePainted(ModelId model, uint64_t pixels) {
  Series(model).picture_pixels->Observe(static_cast<double>(pixels));
}

void Metrics::SetQueueLimit(uint32_t requests) { families_->queue_limit.Add({}).Set(requests); }

void Metrics::PreviewDropped(ModelId model) { Series(model).previews_dropped->Increment(); }

void Metrics::OnCosts(ModelId model, std::vector<StepCosts::Description> costs) {
  const ModelSeries& series = Observed(model);
  {
    // Until they are noted as shown, another version that goes could take them away.
    absl::MutexLock lock(&mu_);
    SetCosts(model, series.name, costs);
  }
  Figures::OnCosts(model, std::move(costs));
}

void Metrics::SetCosts(ModelId model, const std::string& name,
                       absl::Span<const StepCosts::Description> costs) {
  // Clients choose the sizes: time series are bounded.
  std::set<prometheus::Labels> steps;
  for (size_t i = 0; i < std::min(costs.size(), kMaxCostSeries); ++i) {
    const StepCosts::Description& cost = costs[i];
    const prometheus::Labels step = {{"model", name},
                                     {"step", kStepKinds[Index(cost.key.kind)]},
                                     {"size", absl::StrCat(cost.key.width, "x", cost.key.height)}};
    const CostGauges gauges = CostGaugesOf(step);
    gauges.knee->Set(cost.knee);
    gauges.one_row->Set(absl::ToDoubleSeconds(cost.one_row));
    gauges.one_row_bytes->Set(static_cast<double>(cost.one_row_bytes));
    gauges.knee_rows->Set(absl::ToDoubleSeconds(cost.knee_rows));
    gauges.knee_rows_bytes->Set(static_cast<double>(cost.knee_rows_bytes));
    steps.insert(step);
  }
  ShowCosts(model, std::move(steps));
}

Metrics::CostGauges Metrics::CostGaugesOf(const prometheus::Labels& step) {
  prometheus::Labels one = step, knee = step;
  one["rows"] = "1";
  knee["rows"] = "knee";
  Families& f = *families_;
  return {&f.knee_rows.Add(step), &f.step_cost_seconds.Add(one), &f.step_cost_seconds.Add(knee),
          &f.step_cost_bytes.Add(one), &f.step_cost_bytes.Add(knee)};
}

void Metrics::ShowCosts(ModelId model, std::set<prometheus::Labels> costs) {
  const std::set<prometheus::Labels> before = std::exchange(shown_[model].costs, std::move(costs));
  for (const prometheus::Labels& step : before) {
    // Another version may have it, too.
    const auto has = [&](const auto& other) { return other.second.costs.contains(step); };
    if (std::any_of(shown_.begin(), shown_.end(), has)) continue;
    const CostGauges gauges = CostGaugesOf(step);
    families_->knee_rows.Remove(gauges.knee);
    families_->step_cost_seconds.Remove(gauges.one_row);
    families_->step_cost_seconds.Remove(gauges.knee_rows);
    families_->step_cost_bytes.Remove(gauges.one_row_bytes);
    families_->step_cost_bytes.Remove(gauges.knee_rows_bytes);
  }
}

void Metrics::OnLoad(ModelId model, uint32_t waiting, uint32_t running) {
  const ModelSeries& s = Observed(model);
  absl::MutexLock lock(&mu_);
  ShowLoad(s, waiting, running, &shown_[model]);
}

void Metrics::OnPages(WorkerId worker, ModelId model, uint32_t used, uint32_t total) {
  const ModelSeries& s = Observed(model);
  if (worker >= s.pages_used.size()) return;  // a picture model has none
  absl::MutexLock lock(&mu_);
  ShowPages(s, worker, used, total, &shown_[model]);
}

void Metrics::ShowLoad(const ModelSeries& series, uint32_t waiting, uint32_t running,
                       Shown* shown) {
  Change(series.waiting, waiting, &shown->waiting);
  Change(series.running, running, &shown->running);
}

void Metrics::ShowPages(const ModelSeries& series, WorkerId worker, uint32_t used, uint32_t total,
                        Shown* shown) {
  shown->pages_used.resize(series.pages_used.size());
  shown->pages_total.resize(series.pages_total.size());
  Change(series.pages_used[worker], used, &shown->pages_used[worker]);
  Change(series.pages_total[worker], total, &shown->pages_total[worker]);
}

void Metrics::OnOverload(bool overloaded) {
  families_->overload->Set(overloaded ? 1 : 0);
  Figures::OnOverload(overloaded);
}

void Metrics::OnTick(absl::Duration time) { families_->tick->Observe(absl::ToDoubleSeconds(time)); }

}  // namespace hanmo
