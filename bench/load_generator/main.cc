// bench_serve: sends the trace on stdin to a server and prints what became of each call, one line
// of JSON each, then one line about itself. bench/serve is what people start.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "bench/load_generator/arrival.h"
#include "client/connection.h"
#include "client/load/load_run.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

double ProcessorSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return t.tv_sec + 1e-6 * t.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

absl::StatusOr<std::vector<Arrival>> ReadTrace() {
  std::vector<Arrival> trace;
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    auto arrival = ParseArrival(line);
    if (!arrival.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("line %d of the trace: %s", number, arrival.status().message()));
    }
    if (!trace.empty() && arrival->at < trace.back().at) {
      return absl::InvalidArgumentError(
          absl::StrFormat("line %d of the trace: at_s must not go back", number));
    }
    trace.push_back(*std::move(arrival));
  }
  return trace;
}

void Print(const Outcome& outcome, absl::Time start) {
  nlohmann::json line = {
      {"arrival", outcome.arrival},
      {"due_s", absl::ToDoubleSeconds(outcome.due - start)},
      {"late_s", absl::ToDoubleSeconds(outcome.late)},
      {"latency_s", absl::ToDoubleSeconds(outcome.latency)},
      {"code",
       absl::StatusCodeToString(static_cast<absl::StatusCode>(outcome.status.error_code()))},
      {"cut", outcome.cut},
      {"queue_s", absl::ToDoubleSeconds(outcome.queue)},
      {"device_s", absl::ToDoubleSeconds(outcome.device)},
      {"hash", absl::StrFormat("%016x", outcome.hash)},
  };
  if (!outcome.status.ok()) line["message"] = outcome.status.error_message();
  for (const Delta& delta : outcome.deltas) {
    line["deltas"].push_back({absl::ToDoubleSeconds(delta.at), delta.tokens});
  }
  std::puts(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

struct Servers {
  std::string pictures;
  std::string texts;
  uint32_t connections = 8;  // to each
};

absl::Status Connect(const Servers& servers, LoadRun* run) {
  const auto pictures = OpenChannels({.server = servers.pictures}, servers.connections);
  if (!pictures.ok()) return pictures.status();
  const auto texts = OpenChannels({.server = servers.texts}, servers.connections);
  if (!texts.ok()) return texts.status();
  return run->Connect(*texts, *pictures);
}

int Main(const Servers& servers, const LoadOptions& options) {
  const auto trace = ReadTrace();
  if (!trace.ok()) {
    std::cerr << "bench_serve: " << trace.status().message() << "\n";
    return 64;
  }
  LoadRun run(options);
  if (const absl::Status status = Connect(servers, &run); !status.ok()) {
    std::cerr << "bench_serve: " << status.message() << "\n";
    return 69;
  }
  const double used = ProcessorSeconds();
  std::vector<Outcome> outcomes;
  auto place = trace->begin();
  const auto next = [&] {
    return place == trace->end() ? std::nullopt : std::optional<Arrival>(*place++);
  };
  run.Play(next, [&outcomes](Outcome outcome) { outcomes.push_back(std::move(outcome)); });
  const nlohmann::json summary = {{"wall_s", absl::ToDoubleSeconds(absl::Now() - run.start())},
                                  {"processor_s", ProcessorSeconds() - used}};
  for (const Outcome& outcome : outcomes) Print(outcome, run.start());
  std::puts(summary.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  hanmo::Servers servers;
  hanmo::LoadOptions options;
  bool one_by_one = false;
  double length_s = 0;
  double drain_s = 60;
  CLI::App app("Sends the trace on stdin at its instants and prints what became of each call.");
  app.add_option("--pictures", servers.pictures, "server of the pictures, HOST:PORT")->required();
  app.add_option("--texts", servers.texts, "server of the texts, HOST:PORT")->required();
  app.add_option("--connections", servers.connections, "to each server")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--length", length_s, "seconds after which repeated calls end");
  app.add_option("--drain", drain_s, "seconds for the other calls to end after that")
      ->capture_default_str();
  app.add_flag("--one-by-one", one_by_one, "send each call when the one before has ended");
  CLI11_PARSE(app, argc, argv);
  options.length = absl::Seconds(length_s);
  options.drain = absl::Seconds(drain_s);
  if (one_by_one) options.concurrency = 1;
  // It shares the cores with the server it measures: being late would be taken for latency. Not
  // everybody may.
  setpriority(PRIO_PROCESS, 0, -10);
  return hanmo::Main(servers, options);
}
