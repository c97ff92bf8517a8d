#include "client/generation_stream.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "hanmo/v1/generation.grpc.pb.h"
#include "hanmo/v1/models.grpc.pb.h"

namespace hanmo {

using hanmo::v1::GenerateRequest;
using hanmo::v1::GenerateStreamResponse;

grpc::Status StreamGeneration(const std::shared_ptr<grpc::Channel>& channel, Call* call,
                              const GenerateRequest& request, const EventSink& sink) {
  const auto stub = hanmo::v1::Generation::NewStub(channel);
  const auto reader = stub->GenerateStream(call->context(), request);
  GenerateStreamResponse event;
  absl::Status fault;
  bool final = false;
  while (fault.ok() && reader->Read(&event)) {
    final = event.has_final();
    fault = sink(&event);
  }
  if (!fault.ok()) call->context()->TryCancel();
  const grpc::Status status = reader->Finish();
  if (!fault.ok()) {
    return grpc::Status(static_cast<grpc::StatusCode>(fault.code()), std::string(fault.message()));
  }
  if (status.ok() && !final) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "the stream ended without its final event");
  }
  return status;
}

grpc::Status ChooseModel(const std::shared_ptr<grpc::Channel>& channel, const Console& console,
                         hanmo::v1::Task task, std::string* model) {
  if (!model->empty()) return grpc::Status::OK;
  const auto stub = hanmo::v1::Models::NewStub(channel);
  hanmo::v1::ListModelsResponse response;
  Call call(console, kQuickTimeout);
  const grpc::Status status = stub->ListModels(call.context(), {}, &response);
  if (!status.ok()) return status;
  std::vector<std::string> names;
  for (const hanmo::v1::ModelSummary& summary : response.models()) {
    const auto& tasks = summary.tasks();
    if (std::find(tasks.begin(), tasks.end(), task) != tasks.end()) names.push_back(summary.name());
  }
  if (names.size() == 1) {
    *model = names[0];
    return grpc::Status::OK;
  }
  const std::string choices = names.empty()
                                  ? "the server has no model for this"
                                  : absl::StrCat("must be one of ", absl::StrJoin(names, ", "));
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, absl::StrCat("--model: ", choices));
}

}  // namespace hanmo
