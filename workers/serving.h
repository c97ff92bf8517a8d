// The life of a worker process: its flags, its listening modes, its end.
#ifndef HANMO_WORKERS_SERVING_H_
#define HANMO_WORKERS_SERVING_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "workers/executor.h"

namespace hanmo {

struct WorkerOptions {
  // One of the two. fd: a connected socket inherited from the server (spawn mode); the process ends
  // with it. listen: unix:/path, tls:host:port, or host:port on loopback (attach mode).
  int fd = -1;
  std::string listen;
  // For tls: this worker's certificate and key, and what checks the server's certificate; without
  // the last, any client is served.
  std::string tls_certificate_file;
  std::string tls_key_file;
  std::string tls_ca_file;

  std::string device = "cpu";
  uint32_t threads = 1;
  std::string log_level = "info";
  std::string fault;  // see fault.h; empty: none
};

// Reads the command line. Prints and exits on --help, --version and on bad flags (code 2).
WorkerOptions ParseWorkerFlags(int argc, char** argv);

// Asks the kernel to end this process when the thread that started it ends.
void DieWithParent();

// Serves `executor` until the stream ends (spawn mode) or SIGTERM/SIGINT (attach mode).
// `start_thread` runs first on the compute thread. INVALID_ARGUMENT or UNAVAILABLE when it can't
// listen.
absl::Status ServeWorker(const WorkerOptions& options, Executor* executor,
                         std::function<void()> start_thread);

}  // namespace hanmo

#endif  // HANMO_WORKERS_SERVING_H_
