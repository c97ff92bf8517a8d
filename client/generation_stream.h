// One GenerateStream call from its request to its final event.
#ifndef HANMO_CLIENT_GENERATION_STREAM_H_
#define HANMO_CLIENT_GENERATION_STREAM_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/connection.h"
#include "grpcpp/channel.h"
#include "hanmo/v1/generation.pb.h"
#include "hanmo/v1/models.pb.h"

namespace hanmo {

// An error cancels the call and becomes its status.
using EventSink = std::function<absl::Status(hanmo::v1::GenerateStreamResponse*)>;

// Calls and hands every event to `sink`. OK means that the stream ended with OK and with a final
// event.
grpc::Status StreamGeneration(const std::shared_ptr<grpc::Channel>& channel, Call* call,
                              const hanmo::v1::GenerateRequest& request, const EventSink& sink);

// Fills in an empty `model` with the only one on the server for `task`; INVALID_ARGUMENT with the
// choices when there is not exactly one.
grpc::Status ChooseModel(const std::shared_ptr<grpc::Channel>& channel, const Console& console,
                         hanmo::v1::Task task, std::string* model);

}  // namespace hanmo

#endif  // HANMO_CLIENT_GENERATION_STREAM_H_
