// Reads the tensors of a ModelInferRequest, whose shapes, datatypes and bytes nobody has checked.
#ifndef HANMO_SERVER_OPEN_INFERENCE_INPUT_TENSORS_H_
#define HANMO_SERVER_OPEN_INFERENCE_INPUT_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "inference/grpc_service.pb.h"

namespace hanmo {

// One input: as many elements as its shape says, in `contents` or as raw bytes. Every method that
// fails does so with INVALID_ARGUMENT and the tensor's name.
class InputTensor {
 public:
  absl::string_view name() const { return proto_->name(); }
  absl::string_view datatype() const { return proto_->datatype(); }
  absl::Span<const int64_t> shape() const { return proto_->shape(); }
  size_t elements() const { return elements_; }

  // Any of INT8 to INT64 and UINT8 to UINT64.
  absl::StatusOr<std::vector<absl::int128>> Integers() const;
  // FP32 or FP64; NaN and infinities as they came.
  absl::StatusOr<std::vector<double>> Floats() const;
  absl::StatusOr<std::vector<bool>> Booleans() const;
  // BYTES.
  absl::StatusOr<std::vector<std::string>> Bytes() const;
  // The same, each element valid UTF-8.
  absl::StatusOr<std::vector<std::string>> Texts() const;

 private:
  friend absl::StatusOr<std::vector<InputTensor>> ReadTensors(const inference::ModelInferRequest&);

  template <typename Value, typename Wire, typename Contents>
  absl::StatusOr<std::vector<Value>> Numbers(const Contents& contents) const;
  absl::Status Error(absl::string_view description) const;
  absl::Status CountError(size_t found) const;
  absl::StatusOr<std::vector<std::string>> RawBytes() const;

  const inference::ModelInferRequest::InferInputTensor* proto_ = nullptr;
  const std::string* raw_ = nullptr;  // null: the elements are in the proto's contents
  size_t elements_ = 0;
};

// The inputs of `request`, which outlives them. INVALID_ARGUMENT for a name that is missing or
// comes twice, a shape that no message could fill, raw contents that are not one for each input,
// and inputs with both kinds of contents.
absl::StatusOr<std::vector<InputTensor>> ReadTensors(const inference::ModelInferRequest& request);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_INPUT_TENSORS_H_
