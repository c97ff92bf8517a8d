#include "server/rpc/call_counter.h"

#include <string>

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "server/batcher/clock.h"

namespace hanmo {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::ServerRpcInfo;

const char* TypeName(ServerRpcInfo::Type type) {
  switch (type) {
    case ServerRpcInfo::Type::UNARY:
      return "unary";
    case ServerRpcInfo::Type::CLIENT_STREAMING:
      return "client_stream";
    case ServerRpcInfo::Type::SERVER_STREAMING:
      return "server_stream";
    case ServerRpcInfo::Type::BIDI_STREAMING:
      return "bidi_stream";
  }
  return "unary";
}

// Whether a service that is linked has the method of this path.
bool Exists(absl::string_view path) {
  const std::string name = absl::StrReplaceAll(absl::StripPrefix(path, "/"), {{"/", "."}});
  return google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name) != nullptr;
}

CallMetrics::Method* MethodOf(ServerRpcInfo* call, CallMetrics* calls) {
  if (CallMetrics::Method* known = calls->Find(call->method())) return known;
  return Exists(call->method()) ? &calls->Add(call->method(), TypeName(call->type()))
                                : &calls->Add("/unknown/unknown", "unary");
}

class CallCounter final : public grpc::experimental::Interceptor {
 public:
  explicit CallCounter(CallMetrics::Method* method) : method_(*method), start_(SteadyNow()) {
    method_.Started();
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    // Every call ends with a status, also one whose client has left.
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<absl::StatusCode>(batch->GetSendStatus().error_code());
      method_.Ended(code, SteadyNow() - start_);
    }
    batch->Proceed();
  }

 private:
  CallMetrics::Method& method_;
  const absl::Time start_;
};

}  // namespace

grpc::experimental::Interceptor* CallCounterFactory::CreateServerInterceptor(ServerRpcInfo* call) {
  return new CallCounter(MethodOf(call, &calls_));
}

}  // namespace hanmo
