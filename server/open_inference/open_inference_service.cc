#include "server/open_inference/open_inference_service.h"

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/open_inference/model_description.h"
#include "server/open_inference/unary_infer.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/pending_call.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/unary_reply.h"
#include "server/rpc/violations.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

using grpc::health::v1::HealthCheckResponse;

// What Triton calls the parts of the protocol that are served beyond its core.
constexpr const char* kExtensions[] = {
    "model_configuration", "model_repository", "model_repository(unload_dependents)",
    "parameters",          "schedule_policy",  "statistics"};

constexpr char kOneRepository[] = "must be empty: there is one repository";

// Answers with what `work` makes of the request.
template <typename Request, typename Response, typename Work>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* rpc, const grpc::ByteBuffer& request,
                                 grpc::ByteBuffer* response, Work work) {
  Request proto;
  Response reply;
  absl::Status status = ParseMessage(request, &proto);
  if (status.ok()) status = work(proto, &reply);
  return Reply(rpc, status, reply, response);
}

// An idle one is loaded by its next request.
bool IsReady(ModelPhase phase) { return phase == ModelPhase::kReady || phase == ModelPhase::kIdle; }

// There is one repository, whose models are loaded as they are.
template <typename Request>
absl::Status CheckControl(const CallContext& server, const Request& request) {
  if (server.repository_control == nullptr) {
    return absl::UnimplementedError("this server does not load and unload models while it runs");
  }
  if (!request.repository_name().empty()) {
    return FieldError("repository_name", kOneRepository);
  }
  for (const auto& [name, parameter] : request.parameters()) {
    // No model here depends on another.
    if (name == "unload_dependents") continue;
    return FieldError("parameters", "must be empty: models are loaded as their folders are");
  }
  if (IsModelName(request.model_name())) return absl::OkStatus();
  return absl::NotFoundError("model_name: there is no such model");
}

// `start` begins it and returns what cancels it, or nothing.
template <typename Request, typename Response, typename Start>
grpc::ServerUnaryReactor* Control(const CallContext& server, grpc::CallbackServerContext* rpc,
                                  const grpc::ByteBuffer& request, grpc::ByteBuffer* response,
                                  const Start& start) {
  Request proto;
  absl::Status status = ParseMessage(request, &proto);
  if (status.ok()) status = CheckControl(server, proto);
  if (!status.ok()) return Reply(rpc, status, Response(), response);
  *response = SerializeMessage(Response());
  auto call = PendingCall::Make(rpc);
  grpc::ServerUnaryReactor* const reactor = call.get();
  std::function<void()> cancel = start(*server.repository_control, proto.model_name(),
                                       [call](const absl::Status& done) { call->End(done); });
  if (cancel) call->WhenCancelled(std::move(cancel));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* OpenInferenceService::ServerLive(grpc::CallbackServerContext* rpc,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return Answer<inference::ServerLiveRequest, inference::ServerLiveResponse>(
      rpc, *request, response, [](const auto&, auto* reply) {
        reply->set_live(true);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerReady(grpc::CallbackServerContext* rpc,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return Answer<inference::ServerReadyRequest, inference::ServerReadyResponse>(
      rpc, *request, response, [this](const auto&, auto* reply) {
        reply->set_ready(health_.StateOf("") == HealthCheckResponse::SERVING);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelReady(grpc::CallbackServerContext* rpc,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return Answer<inference::ModelReadyRequest, inference::ModelReadyResponse>(
      rpc, *request, response, [this](const auto& proto, auto* reply) -> absl::Status {
        if (proto.name().empty()) return FieldError("name", "is required");
        const auto model = FindModel(*server_.models, proto.name(), proto.version(), "name");
        reply->set_ready(model.ok() && IsReady(server_.models->phase((*model)->spec.id)) &&
                         health_.StateOf("hanmo.v1.Models") == HealthCheckResponse::SERVING);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerMetadata(grpc::CallbackServerContext* rpc,
                                                               const grpc::ByteBuffer* request,
                                                               grpc::ByteBuffer* response) {
  return Answer<inference::ServerMetadataRequest, inference::ServerMetadataResponse>(
      rpc, *request, response, [this](const auto&, auto* reply) {
        reply->set_name("hanmo");
        reply->set_version(server_.version);
        for (const char* extension : kExtensions) reply->add_extensions(extension);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelMetadata(grpc::CallbackServerContext* rpc,
                                                              const grpc::ByteBuffer* request,
                                                              grpc::ByteBuffer* response) {
  return Answer<inference::ModelMetadataRequest, inference::ModelMetadataResponse>(
      rpc, *request, response, [this](const auto& proto, auto* reply) -> absl::Status {
        const auto model = FindModel(*server_.models, proto.name(), proto.version(), "name");
        if (!model.ok()) return model.status();
        DescribeMetadata((*model)->spec, reply);
        for (const ModelListing& listing : server_.models->List()) {
          if (listing.name != (*model)->spec.name) continue;
          for (const auto& version : listing.versions) {
            if (version.phase != ModelPhase::kUnloaded) {
              reply->add_versions(absl::StrCat(version.spec.version));
            }
          }
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelConfig(grpc::CallbackServerContext* rpc,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return Answer<inference::ModelConfigRequest, inference::ModelConfigResponse>(
      rpc, *request, response, [this](const auto& proto, auto* reply) -> absl::Status {
        const auto model = FindModel(*server_.models, proto.name(), proto.version(), "name");
        if (model.ok()) DescribeConfig((*model)->spec, reply->mutable_config());
        return model.status();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelStatistics(grpc::CallbackServerContext* rpc,
                                                                const grpc::ByteBuffer* request,
                                                                grpc::ByteBuffer* response) {
  return Answer<inference::ModelStatisticsRequest, inference::ModelStatisticsResponse>(
      rpc, *request, response, [this](const auto& proto, auto* reply) -> absl::Status {
        if (proto.name().empty()) {
          for (const ModelRef& model : server_.models->Served()) {
            DescribeStatistics(model->spec, *server_.figures, reply->add_model_stats());
          }
          return absl::OkStatus();
        }
        const auto model = FindModel(*server_.models, proto.name(), proto.version(), "name");
        if (model.ok())
          DescribeStatistics((*model)->spec, *server_.figures, reply->add_model_stats());
        return model.status();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryIndex(grpc::CallbackServerContext* rpc,
                                                                const grpc::ByteBuffer* request,
                                                                grpc::ByteBuffer* response) {
  return Answer<inference::RepositoryIndexRequest, inference::RepositoryIndexResponse>(
      rpc, *request, response, [this](const auto& proto, auto* reply) -> absl::Status {
        if (!proto.repository_name().empty()) {
          return FieldError("repository_name", kOneRepository);
        }
        for (const ModelListing& model : server_.models->List()) {
          for (const ModelListing::Version& version : model.versions) {
            if (proto.ready() && !IsReady(version.phase)) continue;
            DescribeIndex(version, server_.models->Status(version.spec.id).detail,
                          reply->add_models());
          }
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelLoad(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Control<inference::RepositoryModelLoadRequest, inference::RepositoryModelLoadResponse>(
      server_, rpc, *request, response,
      [](RepositoryControl& control, const std::string& name, RepositoryControl::Done done) {
        return control.Load(name, std::move(done));
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelUnload(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Control<inference::RepositoryModelUnloadRequest, inference::RepositoryModelUnloadResponse>(
      server_, rpc, *request, response,
      [](RepositoryControl& control, const std::string& name, RepositoryControl::Done done) {
        control.Unload(name, std::move(done));
        return nullptr;
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelInfer(grpc::CallbackServerContext* rpc,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return UnaryInfer::Start(server_, rpc, *request, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* OpenInferenceService::ModelStreamInfer(
    grpc::CallbackServerContext* rpc) {
  return StreamInfer::Start(server_, rpc, &streams_);
}

}  // namespace hanmo
