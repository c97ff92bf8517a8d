// Traces of requests: W3C trace context in, OpenTelemetry spans out, over OTLP. Numbers and names
// only, never prompts, texts or pictures.
//
// A request is one span of kind server, named after its method, with a child for each phase
// (tokenize, queue, prefill, decode, denoise, vae_decode, picture_encode, send).
#ifndef HANMO_SERVER_TELEMETRY_TRACER_H_
#define HANMO_SERVER_TELEMETRY_TRACER_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace hanmo {

struct TraceAttribute {
  absl::string_view key;
  std::variant<absl::string_view, int64_t, double> value;
};

// One request's span. Times are those of SteadyNow(). Calls come one at a time, from any thread.
class RequestSpan {
 public:
  virtual ~RequestSpan() = default;
  // Whether it will be exported: what costs time to find out need not be told otherwise.
  virtual bool recording() const = 0;
  // "00-TRACE-SPAN-FLAGS" of this span, as in W3C's header traceparent.
  virtual std::string traceparent() const = 0;
  virtual void AddPhase(absl::string_view name, absl::Time start, absl::Time end,
                        std::initializer_list<TraceAttribute> attributes) = 0;
  // Once and last.
  virtual void End(absl::Time end, const absl::Status& status,
                   std::initializer_list<TraceAttribute> attributes) = 0;
};

// Thread-safe; one at a time in a process. Spans are gathered and sent from a thread of its own;
// when the collector does not keep up or is not there, they are dropped.
class Tracer {
 public:
  struct Options {
    // "http://HOST:PORT" or "https://HOST:PORT" of a collector that takes OTLP over gRPC.
    std::string endpoint;
    // Of requests whose caller has not decided: every how many-th is traced, at random.
    uint32_t one_in = 1;
    std::string version;  // of the server
    // Told what goes wrong with the collector, once a minute at most; from any thread.
    std::function<void(absl::string_view)> complain;
  };

  // Whether this build has OpenTelemetry.
  static bool Available();
  // UNIMPLEMENTED where it has not. Does not connect yet.
  static absl::StatusOr<std::unique_ptr<Tracer>> Create(const Options& options);

  // Sends what is waiting; a collector that does not answer delays it by a few seconds.
  virtual ~Tracer() = default;
  // `traceparent` and `tracestate` are the caller's headers, empty where there are none; a
  // malformed one is ignored, as W3C demands. `method` is "package.Service/Method".
  virtual std::unique_ptr<RequestSpan> Begin(absl::string_view method,
                                             absl::string_view traceparent,
                                             absl::string_view tracestate, absl::Time start) = 0;
};

// The trace id, 32 hexadecimal digits, of a well-formed W3C traceparent; else empty.
absl::string_view TraceIdOf(absl::string_view traceparent);

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_TRACER_H_
