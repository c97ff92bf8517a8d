// Plans beyond the machines at hand: the real batcher under a clock of its own, with workers that
// only take the time that a device's measured curve says.
//
//   bench_simulate --workers 1000 --requests 1000000 --load 0.8 --policies hanmo,fcfs,static
//
// The trace is that of bench/serve's mixed-pictures: 4, 20 or 50 steps (40, 40 and 20 %), 256 or
// 512 pixels, guided or not, Poisson arrivals. One JSON line per policy (and stretch): times in
// seconds of the simulated clock; `load` is that of one picture at a time. Every policy gets the
// same trace.
//
// With --experts the model has so many UNets by timestep, of which a worker holds two: the next one
// is loaded, in --change seconds, while one runs, and any other must be waited for.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_split.h"
#include "bench/simulated_devices.h"
#include "server/batcher/batcher.h"
#include "server/batcher/testing/ignoring_sink.h"

namespace hanmo {
namespace {

constexpr ModelId kModel = 0;
constexpr double kWarmUp = 0.1;  // of the requests, not counted

// Time of the text encoder in steps of one row.
constexpr double kEncode = 0.02;

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

struct Fleet {
  uint32_t workers = 1;
  uint32_t experts = 1;
  double change = 0;  // seconds
};

class Simulation;

// Takes one command after another.
class SimulatedWorker final : public WorkerLink {
 public:
  SimulatedWorker(WorkerId id, Simulation* simulation) : id_(id), simulation_(*simulation) {}

  void Begin(SampleHandle sample, ModelId, const SampleJob& job, hanmo::Resume) override {
    samples_[sample] = {std::get<PictureJob>(job).steps, 0, RowsOf(std::get<PictureJob>(job)),
                        std::get<PictureJob>(job).width};
  }
  void Run(const Step& step) override {
    commands_.push_back({step, absl::ZeroDuration()});
    if (commands_.size() == 1) Start();
  }
  void Resume(uint64_t step, absl::Duration budget) override {
    Step again;
    again.id = step;
    commands_.push_back({std::move(again), budget});
    if (commands_.size() == 1) Start();
  }
  void Save(const std::vector<SampleHandle>&) override {}
  void Drop(const std::vector<SampleHandle>& samples) override {
    for (const SampleHandle sample : samples) samples_.erase(sample);
  }

  // The command at the front has ended.
  void Finish();

 private:
  struct Sample {
    uint32_t steps = 0;
    uint32_t done = 0;
    uint32_t rows = 1;
    uint32_t width = 0;
  };
  struct Command {
    Step step;
    absl::Duration budget;  // of a Resume
  };

  void Start();
  double SecondsOf(const Step& step) const;
  uint32_t ExpertOf(const Sample& sample, uint32_t call) const;
  // Seconds until the step's expert is there.
  double AwaitExpert(const Step& step);

  const WorkerId id_;
  Simulation& simulation_;
  std::deque<Command> commands_;
  absl::flat_hash_map<SampleHandle, Sample> samples_;
  // The step in slices and what is left of it.
  Step sliced_;
  double sliced_left_ = 0;
  double slice_ = 0;  // seconds of the command under way
  double waited_ = 0;
  uint32_t expert_ = 0;
  double next_loaded_ = 0;  // when the expert after it is there
};

struct Outcome {
  std::vector<double> latency;
  std::vector<double> slowdown;
  double busy = 0;
  double waited = 0;
  uint64_t rows = 0;
  uint64_t steps = 0;
  uint64_t ticks = 0;
};

class PictureSink final : public testing::IgnoringSink {
 public:
  PictureSink(double at, double lone, const double* now, Outcome* outcome)
      : at_(at), lone_(lone), now_(now), outcome_(outcome) {}
  void OnDone(const absl::Status& status, const Usage&) override {
    if (!status.ok() || outcome_ == nullptr) return;
    outcome_->latency.push_back(*now_ - at_);
    outcome_->slowdown.push_back((*now_ - at_) / lone_);
  }

 private:
  const double at_;
  const double lone_;
  const double* const now_;
  Outcome* const outcome_;
};

class Simulation {
 public:
  Simulation(const Device& device, BatcherOptions options, const Fleet& fleet)
      : device(device), fleet(fleet), batcher_(options, &observer_, [] {}) {
    for (uint32_t i = 0; i < fleet.workers; ++i) {
      workers_.push_back(std::make_shared<SimulatedWorker>(i, this));
      batcher_.AddWorker(i, workers_.back(), device.name);
      batcher_.ModelReady(i, kModel, {});
    }
    batcher_.Tick(At(0));
  }

  Outcome Run(const std::vector<Job>& jobs) {
    size_t next = 0;
    const auto counted = static_cast<size_t>(kWarmUp * static_cast<double>(jobs.size()));
    while (next < jobs.size() || !ends_.empty()) {
      if (next < jobs.size() && (ends_.empty() || jobs[next].at <= ends_.top().first)) {
        now = jobs[next].at;
        Request request;
        request.model = kModel;
        request.samples.emplace_back(jobs[next].picture);
        request.arrival = At(now);
        const double lone = LoneSeconds(device, jobs[next].picture);
        batcher_.Submit(
            std::move(request),
            std::make_shared<PictureSink>(now, lone, &now, next < counted ? nullptr : &outcome));
        ++next;
      } else {
        now = ends_.top().first;
        const WorkerId worker = ends_.top().second;
        ends_.pop();
        workers_[worker]->Finish();
      }
      batcher_.Tick(At(now));
      ++outcome.ticks;
    }
    return std::move(outcome);
  }

  void EndAt(double time, WorkerId worker) { ends_.push({time, worker}); }
  Batcher& batcher() { return batcher_; }

  const Device& device;
  const Fleet fleet;
  double now = 0;
  Outcome outcome;

 private:
  using End = std::pair<double, WorkerId>;
  BatcherObserver observer_;
  Batcher batcher_;
  std::vector<std::shared_ptr<SimulatedWorker>> workers_;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
};

double SimulatedWorker::SecondsOf(const Step& step) const {
  uint32_t rows = 0;
  uint32_t width = 512;
  for (const Row& row : step.rows) {
    auto found = samples_.find(row.sample);
    if (found == samples_.end()) continue;
    rows += step.kind == StepKind::kVaeDecode ? 1 : found->second.rows;
    width = found->second.width;
  }
  if (rows == 0) return 0;
  if (step.kind == StepKind::kVaeDecode) return simulation_.device.decode(rows, width);
  const double seconds = simulation_.device.step(rows, width);
  return step.kind == StepKind::kTextEncode ? kEncode * seconds : seconds;
}

uint32_t SimulatedWorker::ExpertOf(const Sample& sample, uint32_t call) const {
  return call * simulation_.fleet.experts / sample.steps;
}

double SimulatedWorker::AwaitExpert(const Step& step) {
  const auto found = samples_.find(step.rows[0].sample);
  if (step.kind != StepKind::kDenoise || found == samples_.end()) return 0;
  const Fleet& fleet = simulation_.fleet;
  const uint32_t needed = ExpertOf(found->second, found->second.done);
  if (needed == expert_) return 0;
  const bool next = needed == (expert_ + 1) % fleet.experts;
  const double seconds = next ? std::max(0.0, next_loaded_ - simulation_.now) : fleet.change;
  expert_ = needed;
  next_loaded_ = simulation_.now + seconds + fleet.change;
  simulation_.outcome.waited += seconds;
  return seconds;
}

void SimulatedWorker::Start() {
  Command& command = commands_.front();
  const bool resumes = command.step.rows.empty();
  if (resumes && command.step.id != sliced_.id) {
    slice_ = 0;
  } else {
    if (!resumes) waited_ = AwaitExpert(command.step);
    double seconds = resumes ? sliced_left_ : waited_ + SecondsOf(command.step);
    const absl::Duration budget = resumes ? command.budget : command.step.budget;
    slice_ =
        budget > absl::ZeroDuration() ? std::min(seconds, absl::ToDoubleSeconds(budget)) : seconds;
    sliced_left_ = seconds - slice_;
    if (!resumes) sliced_ = command.step;
  }
  simulation_.EndAt(simulation_.now + slice_, id_);
}

void SimulatedWorker::Finish() {
  const Command command = std::move(commands_.front());
  commands_.pop_front();
  StepResult result;
  result.step = command.step.id;
  result.device_time = absl::Seconds(slice_);
  simulation_.outcome.busy += slice_;
  if (command.step.id != sliced_.id) {
    result.already_done = true;
  } else if (sliced_left_ > 1e-12) {
    result.suspended = true;
  } else {
    const Step step = std::exchange(sliced_, {});
    result.weights_time = absl::Seconds(waited_);
    if (step.kind == StepKind::kDenoise) {
      ++simulation_.outcome.steps;
      simulation_.outcome.rows += step.rows.size();
    }
    for (const Row& row : step.rows) {
      RowResult& out = result.rows.emplace_back();
      out.sample = row.sample;
      auto found = samples_.find(row.sample);
      if (found == samples_.end()) continue;
      if (step.kind == StepKind::kDenoise) ++found->second.done;
      out.steps_done = found->second.done;
      out.steps_total = found->second.steps;
      for (uint32_t call = 0; call < out.steps_total; ++call) {
        const uint32_t expert = ExpertOf(found->second, call);
        if (!out.variants.empty() && out.variants.back().variant == expert) continue;
        out.variants.push_back({call, expert});
      }
    }
  }
  simulation_.batcher().StepDone(id_, std::move(result));
  if (!commands_.empty()) Start();
}

double Quantile(const std::vector<double>& sorted, double q) {
  return sorted.empty() ? 0
                        : sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

void Print(const std::string& policy, const BatcherOptions& options, const Device& device,
           Outcome outcome, double wall_s) {
  double sum = 0, slow = 0, within = 0;
  for (const double latency : outcome.latency) sum += latency;
  for (const double slowdown : outcome.slowdown) {
    slow += slowdown;
    within += slowdown <= 2;
  }
  std::sort(outcome.latency.begin(), outcome.latency.end());
  const auto n = static_cast<double>(std::max<size_t>(1, outcome.latency.size()));
  std::printf(
      "{\"policy\": \"%s\", \"stretch\": %g, \"device\": \"%s\", \"requests\": %zu, "
      "\"mean_s\": %.3f, \"p50_s\": %.3f, \"p90_s\": %.3f, \"p99_s\": %.3f, "
      "\"mean_slowdown\": %.3f, \"within_twice_lone\": %.3f, \"mean_batch\": %.2f, "
      "\"waited_for_experts\": %.4f, "
      "\"ticks\": %llu, \"wall_s\": %.2f}\n",
      policy.c_str(), options.policy.stretch, device.name, outcome.latency.size(), sum / n,
      Quantile(outcome.latency, 0.5), Quantile(outcome.latency, 0.9),
      Quantile(outcome.latency, 0.99), slow / n, within / n,
      static_cast<double>(outcome.rows) / static_cast<double>(std::max<uint64_t>(1, outcome.steps)),
      outcome.waited / std::max(outcome.busy, 1e-9), static_cast<unsigned long long>(outcome.ticks),
      wall_s);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  CLI::App app("Simulates hanmo's batcher on devices that are not there.");
  Fleet fleet;
  size_t requests = 20000;
  double load = 0.8;
  std::string device_name = "cpu";
  std::string policies = "hanmo,fcfs,static";
  std::vector<double> stretches = {BatcherOptions().policy.stretch};
  app.add_option("--workers", fleet.workers, "devices")->capture_default_str();
  app.add_option("--experts", fleet.experts, "UNets of the model, by timestep")
      ->capture_default_str();
  app.add_option("--change", fleet.change, "seconds that an expert takes to load")
      ->capture_default_str();
  app.add_option("--requests", requests, "pictures asked for")->capture_default_str();
  app.add_option("--load", load, "of what the devices do one picture at a time")
      ->capture_default_str();
  app.add_option("--device", device_name, "cpu, h200 or tiny")
      ->check(CLI::IsMember({"cpu", "h200", "tiny"}))
      ->capture_default_str();
  app.add_option("--policies", policies, "of hanmo, fcfs, static")->capture_default_str();
  app.add_option("--stretch", stretches, "values of hanmo's --stretch")->delimiter(',');
  CLI11_PARSE(app, argc, argv);

  const Device& device = FindDevice(device_name);
  const std::vector<Job> jobs = MakeTrace(device, requests, load, fleet.workers);
  const std::vector<std::string> names = absl::StrSplit(policies, ',');
  for (const std::string& policy : names) {
    for (const double stretch : stretches) {
      BatcherOptions options;
      options.policy.policy = policy == "fcfs"     ? Policy::kFcfs
                              : policy == "static" ? Policy::kStatic
                                                   : Policy::kHanmo;
      options.policy.stretch = stretch;
      options.policy.slice = absl::Hours(1);  // nothing else runs on these devices
      options.max_queued_requests = UINT32_MAX;
      options.max_queued_work = absl::InfiniteDuration();
      const auto start = std::chrono::steady_clock::now();
      Outcome outcome = Simulation(device, options, fleet).Run(jobs);
      const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
      Print(policy, options, device, std::move(outcome), wall.count());
      if (options.policy.policy != Policy::kHanmo) break;
    }
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) { return hanmo::Main(argc, argv); }
