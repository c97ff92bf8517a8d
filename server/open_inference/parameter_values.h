// Values for the fields of TextParameters and PictureParameters, from tensors and from parameters
// of a request: whatever converts to a field's type without loss is taken.
#ifndef HANMO_SERVER_OPEN_INFERENCE_PARAMETER_VALUES_H_
#define HANMO_SERVER_OPEN_INFERENCE_PARAMETER_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "inference/grpc_service.pb.h"
#include "server/open_inference/input_tensors.h"

namespace hanmo {

// Of the kind that the field asks for; enums are words.
using ParameterValues = std::variant<std::vector<absl::int128>, std::vector<double>,
                                     std::vector<bool>, std::vector<std::string>>;

// All errors are INVALID_ARGUMENT with the name of the tensor or parameter.

absl::StatusOr<ParameterValues> ValuesOf(const InputTensor& tensor,
                                         const google::protobuf::FieldDescriptor& field);
// One value.
absl::StatusOr<ParameterValues> ValuesOf(absl::string_view name,
                                         const inference::InferParameter& parameter,
                                         const google::protobuf::FieldDescriptor& field);

absl::StatusOr<absl::int128> IntegerOf(absl::string_view name,
                                       const inference::InferParameter& parameter);
absl::StatusOr<bool> BooleanOf(absl::string_view name, const inference::InferParameter& parameter);
absl::StatusOr<std::string> TextOf(absl::string_view name,
                                   const inference::InferParameter& parameter);
absl::StatusOr<uint32_t> ToUint32(absl::string_view name, absl::int128 value);

size_t CountOf(const ParameterValues& values);
// Values are copied for each prompt: bounds by how much a message can grow.
absl::Status CheckSize(absl::string_view name, const ParameterValues& values);

// Gives the field of `message` the value at `index`, or all of them where it is repeated. Only its
// type is checked, not its range.
absl::Status SetField(const google::protobuf::FieldDescriptor& field, const ParameterValues& values,
                      size_t index, google::protobuf::Message* message);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_PARAMETER_VALUES_H_
