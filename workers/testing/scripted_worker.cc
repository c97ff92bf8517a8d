// hanmo-worker's link with a scripted executor: tests start it where no model is needed.
#include <cstdio>

#include "workers/serving.h"
#include "workers/testing/scripted_executor.h"

int main(int argc, char** argv) {
  const hanmo::WorkerOptions options = hanmo::ParseWorkerFlags(argc, argv);
  if (options.fd >= 0) hanmo::DieWithParent();
  hanmo::testing::ScriptedExecutor executor(options.device);
  const absl::Status status = hanmo::ServeWorker(options, &executor, [] {});
  if (status.ok()) return 0;
  fprintf(stderr, "scripted_worker: %s\n", std::string(status.message()).c_str());
  return 1;
}
