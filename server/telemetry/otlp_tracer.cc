#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "opentelemetry/context/propagation/text_map_propagator.h"
#include "opentelemetry/exporters/otlp/otlp_grpc_exporter_factory.h"
#include "opentelemetry/exporters/otlp/otlp_grpc_exporter_options.h"
#include "opentelemetry/sdk/common/global_log_handler.h"
#include "opentelemetry/sdk/resource/resource.h"
#include "opentelemetry/sdk/trace/batch_span_processor_factory.h"
#include "opentelemetry/sdk/trace/batch_span_processor_options.h"
#include "opentelemetry/sdk/trace/samplers/always_on_factory.h"
#include "opentelemetry/sdk/trace/samplers/parent_factory.h"
#include "opentelemetry/sdk/trace/samplers/trace_id_ratio_factory.h"
#include "opentelemetry/sdk/trace/tracer_provider.h"
#include "opentelemetry/trace/context.h"
#include "opentelemetry/trace/propagation/http_trace_context.h"
#include "opentelemetry/trace/span.h"
#include "opentelemetry/trace/tracer.h"
#include "server/batcher/clock.h"
#include "server/telemetry/tracer.h"

namespace hanmo {
namespace {

namespace otel = opentelemetry;
namespace sdk = opentelemetry::sdk::trace;
namespace otlp = opentelemetry::exporter::otlp;

constexpr auto kSendEvery = std::chrono::seconds(1);
constexpr auto kExportTimeout =
    std::chrono::seconds(1);  // of one message; how long an end may take
constexpr absl::Duration kComplainEvery = absl::Minutes(1);
constexpr size_t kMaxWaiting = 8192;  // spans

otel::nostd::string_view View(absl::string_view text) { return {text.data(), text.size()}; }

// As clock.h makes them.
std::chrono::steady_clock::time_point Steady(absl::Time time) {
  return std::chrono::steady_clock::time_point(absl::ToChronoNanoseconds(time - absl::UnixEpoch()));
}

std::chrono::system_clock::time_point System(absl::Time time) {
  return std::chrono::system_clock::now() - absl::ToChronoMicroseconds(SteadyNow() - time);
}

void SetAttributes(std::initializer_list<TraceAttribute> attributes, otel::trace::Span* span) {
  for (const TraceAttribute& attribute : attributes) {
    const auto key = View(attribute.key);
    if (const auto* text = std::get_if<absl::string_view>(&attribute.value)) {
      span->SetAttribute(key, View(*text));
    } else if (const auto* number = std::get_if<int64_t>(&attribute.value)) {
      span->SetAttribute(key, *number);
    } else {
      span->SetAttribute(key, std::get<double>(attribute.value));
    }
  }
}

// What a caller's headers are to OpenTelemetry.
class Headers final : public otel::context::propagation::TextMapCarrier {
 public:
  Headers(absl::string_view traceparent, absl::string_view tracestate)
      : traceparent_(traceparent), tracestate_(tracestate) {}
  otel::nostd::string_view Get(otel::nostd::string_view key) const noexcept override {
    if (key == otel::trace::propagation::kTraceParent) return View(traceparent_);
    return key == otel::trace::propagation::kTraceState ? View(tracestate_) : "";
  }
  void Set(otel::nostd::string_view, otel::nostd::string_view) noexcept override {}

 private:
  const absl::string_view traceparent_;
  const absl::string_view tracestate_;
};

class OtlpSpan final : public RequestSpan {
 public:
  OtlpSpan(otel::nostd::shared_ptr<otel::trace::Tracer> tracer,
           otel::nostd::shared_ptr<otel::trace::Span> span)
      : tracer_(std::move(tracer)), span_(std::move(span)) {}

  bool recording() const override { return span_->IsRecording(); }

  std::string traceparent() const override {
    const otel::trace::SpanContext context = span_->GetContext();
    char trace[32], parent[16], flags[2];
    context.trace_id().ToLowerBase16(trace);
    context.span_id().ToLowerBase16(parent);
    context.trace_flags().ToLowerBase16(flags);
    return absl::StrCat("00-", absl::string_view(trace, 32), "-", absl::string_view(parent, 16),
                        "-", absl::string_view(flags, 2));
  }

  void AddPhase(absl::string_view name, absl::Time start, absl::Time end,
                std::initializer_list<TraceAttribute> attributes) override {
    otel::trace::StartSpanOptions options;
    options.start_steady_time = Steady(start);
    options.start_system_time = System(start);
    options.parent = span_->GetContext();
    const auto phase = tracer_->StartSpan(View(name), options);
    SetAttributes(attributes, phase.get());
    otel::trace::EndSpanOptions at;
    at.end_steady_time = Steady(std::max(start, end));
    phase->End(at);
  }

  void End(absl::Time end, const absl::Status& status,
           std::initializer_list<TraceAttribute> attributes) override {
    SetAttributes(attributes, span_.get());
    // Of a server's span only its own faults are errors:
    // https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
    switch (status.code()) {
      case absl::StatusCode::kUnknown:
      case absl::StatusCode::kDeadlineExceeded:
      case absl::StatusCode::kUnimplemented:
      case absl::StatusCode::kInternal:
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kDataLoss:
        span_->SetStatus(otel::trace::StatusCode::kError, View(status.message()));
        break;
      default:
        break;
    }
    otel::trace::EndSpanOptions at;
    at.end_steady_time = Steady(end);
    span_->End(at);
  }

 private:
  const otel::nostd::shared_ptr<otel::trace::Tracer> tracer_;
  const otel::nostd::shared_ptr<otel::trace::Span> span_;
};

// OpenTelemetry's own log, which else goes to stdout.
class Complaints final : public otel::sdk::common::internal_log::LogHandler {
 public:
  explicit Complaints(std::function<void(absl::string_view)> complain)
      : complain_(std::move(complain)) {}

  void Handle(otel::sdk::common::internal_log::LogLevel level, const char*, int,
              const char* message, const otel::sdk::common::AttributeMap&) noexcept override {
    if (level > otel::sdk::common::internal_log::LogLevel::Warning || !complain_) return;
    {
      absl::MutexLock lock(&mu_);
      const absl::Time now = SteadyNow();
      if (now - last_ < kComplainEvery) return;
      last_ = now;
    }
    complain_(message == nullptr ? "" : message);
  }

 private:
  const std::function<void(absl::string_view)> complain_;
  absl::Mutex mu_;
  absl::Time last_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

class OtlpTracer final : public Tracer {
 public:
  explicit OtlpTracer(const Options& options) {
    SetComplaints(options.complain);
    otlp::OtlpGrpcExporterOptions exporter;
    exporter.endpoint = options.endpoint;
    exporter.timeout = kExportTimeout;
    exporter.use_ssl_credentials = absl::StartsWith(options.endpoint, "https://");
    sdk::BatchSpanProcessorOptions batches;
    batches.max_queue_size = kMaxWaiting;
    batches.schedule_delay_millis = kSendEvery;
    auto sampler = options.one_in == 1 ? sdk::AlwaysOnSamplerFactory::Create()
                                       : sdk::TraceIdRatioBasedSamplerFactory::Create(
                                             1.0 / static_cast<double>(options.one_in));
    std::vector<std::unique_ptr<sdk::SpanProcessor>> processors;
    processors.push_back(sdk::BatchSpanProcessorFactory::Create(
        otlp::OtlpGrpcExporterFactory::Create(exporter), batches));
    provider_ = std::make_unique<sdk::TracerProvider>(
        std::move(processors),
        otel::sdk::resource::Resource::Create(
            {{"service.name", "hanmo"}, {"service.version", options.version}}),
        sdk::ParentBasedSamplerFactory::Create(std::move(sampler)));
    tracer_ = provider_->GetTracer("hanmo", options.version);
  }
  ~OtlpTracer() override {
    // Nobody reads the handler when the exporter's thread is gone.
    tracer_ = {};
    provider_.reset();
    SetComplaints(nullptr);
  }

  std::unique_ptr<RequestSpan> Begin(absl::string_view method, absl::string_view traceparent,
                                     absl::string_view tracestate, absl::Time start) override {
    otel::trace::StartSpanOptions options;
    options.kind = otel::trace::SpanKind::kServer;
    options.start_steady_time = Steady(start);
    options.start_system_time = System(start);
    // Not what this thread may have under way.
    otel::context::Context root;
    root = root.SetValue(otel::trace::kIsRootSpanKey, true);
    const Headers headers(traceparent, tracestate);
    options.parent = TraceIdOf(traceparent).empty() ? root : propagator_.Extract(headers, root);
    const std::pair<absl::string_view, absl::string_view> name =
        absl::StrSplit(method, absl::MaxSplits('/', 1));
    auto span = tracer_->StartSpan(View(method),
                                   {{"rpc.system", "grpc"},
                                    {"rpc.service", View(name.first)},
                                    {"rpc.method", View(name.second)}},
                                   options);
    return std::make_unique<OtlpSpan>(tracer_, std::move(span));
  }

 private:
  static void SetComplaints(std::function<void(absl::string_view)> complain) {
    otel::sdk::common::internal_log::GlobalLogHandler::SetLogHandler(
        otel::nostd::shared_ptr<otel::sdk::common::internal_log::LogHandler>(
            new Complaints(std::move(complain))));
  }

  otel::trace::propagation::HttpTraceContext propagator_;
  std::unique_ptr<sdk::TracerProvider> provider_;
  otel::nostd::shared_ptr<otel::trace::Tracer> tracer_;
};

}  // namespace

bool Tracer::Available() { return true; }

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Create(const Options& options) {
  if (!absl::StartsWith(options.endpoint, "http://") &&
      !absl::StartsWith(options.endpoint, "https://")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be http://HOST:PORT or https://HOST:PORT, got \"", options.endpoint, "\""));
  }
  return std::make_unique<OtlpTracer>(options);
}

}  // namespace hanmo
