#include "server/telemetry/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

namespace hanmo {
namespace {

prometheus::MetricFamily Family(std::string name, std::string help, prometheus::MetricType type,
                                double value) {
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {std::move(name), std::move(help), type, {metric}};
}

double CountEntries(const char* folder) {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    ++count;
  }
  return count;
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  using prometheus::MetricType;
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  double total_pages = 0;
  double resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return {
      Family("process_open_fds", "Open file descriptors", MetricType::Gauge,
             CountEntries("/proc/self/fd")),
      Family("process_max_fds", "Limit of open file descriptors", MetricType::Gauge,
             static_cast<double>(files.rlim_cur)),
      Family("process_threads", "Threads", MetricType::Gauge, CountEntries("/proc/self/task")),
      Family("process_resident_memory_bytes", "Resident memory", MetricType::Gauge,
             resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE))),
      Family("process_cpu_seconds_total", "User and system CPU time", MetricType::Counter,
             Seconds(usage.ru_utime) + Seconds(usage.ru_stime)),
      Family("process_start_time_seconds", "When the server began, since 1970", MetricType::Gauge,
             absl::ToDoubleSeconds(start_ - absl::UnixEpoch())),
  };
}

}  // namespace hanmo
