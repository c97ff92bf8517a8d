#include "server/open_inference/input_tensors.h"

#include <bit>
#include <cstring>
#include <set>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/rpc/violations.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

using inference::ModelInferRequest;

static_assert(std::endian::native == std::endian::little, "raw tensors are little-endian");

// gRPC's messages end at 2 GiB, and no element is smaller than a byte.
// Far above what any tensor here can have, and before anything is made of it.
constexpr int64_t kMaxElements = int64_t{1} << 20;
constexpr int kMaxInputs = 64;
constexpr int kMaxDimensions = 8;
constexpr size_t kLengthBytes = 4;
// An unknown name is only worth repeating when it is short.
constexpr size_t kMaxNameBytes = 64;

// Negative when there are too many.
int64_t ElementsOf(absl::Span<const int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t side : shape) {
    if (side < 0 || side > kMaxElements) return -1;
    elements *= side;
    if (elements > kMaxElements) return -1;
  }
  return elements;
}

bool HasContents(const inference::InferTensorContents& contents) {
  return contents.ByteSizeLong() > 0;
}

}  // namespace

absl::Status InputTensor::Error(absl::string_view description) const {
  return FieldError(name(), description);
}

absl::Status InputTensor::CountError(size_t found) const {
  return Error(absl::StrCat("shape [", absl::StrJoin(shape(), ","), "] needs ", elements_,
                            " elements of ", datatype(), ", got ", found));
}

template <typename Value, typename Wire, typename Contents>
absl::StatusOr<std::vector<Value>> InputTensor::Numbers(const Contents& contents) const {
  std::vector<Value> values;
  if (raw_ == nullptr) {
    if (static_cast<size_t>(contents.size()) != elements_) return CountError(contents.size());
    values.reserve(elements_);
    for (const auto value : contents) {
      // Small integers come in wider fields.
      if constexpr (std::is_integral_v<Wire>) {
        if (static_cast<decltype(value)>(static_cast<Wire>(value)) != value) {
          return Error(absl::StrCat("must fit ", datatype(), ", got ", value));
        }
      }
      values.push_back(static_cast<Value>(static_cast<Wire>(value)));
    }
    return values;
  }
  if (raw_->size() != elements_ * sizeof(Wire)) {
    return Error(absl::StrCat("shape [", absl::StrJoin(shape(), ","), "] needs ",
                              elements_ * sizeof(Wire), " bytes of ", datatype(), ", got ",
                              raw_->size()));
  }
  values.reserve(elements_);
  for (size_t i = 0; i < elements_; ++i) {
    Wire value;
    std::memcpy(&value, raw_->data() + i * sizeof(Wire), sizeof(Wire));
    values.push_back(static_cast<Value>(value));
  }
  return values;
}

absl::StatusOr<std::vector<absl::int128>> InputTensor::Integers() const {
  const auto& contents = proto_->contents();
  const absl::string_view type = datatype();
  if (type == "INT8") return Numbers<absl::int128, int8_t>(contents.int_contents());
  if (type == "INT16") return Numbers<absl::int128, int16_t>(contents.int_contents());
  if (type == "INT32") return Numbers<absl::int128, int32_t>(contents.int_contents());
  if (type == "INT64") return Numbers<absl::int128, int64_t>(contents.int64_contents());
  if (type == "UINT8") return Numbers<absl::int128, uint8_t>(contents.uint_contents());
  if (type == "UINT16") return Numbers<absl::int128, uint16_t>(contents.uint_contents());
  if (type == "UINT32") return Numbers<absl::int128, uint32_t>(contents.uint_contents());
  if (type == "UINT64") return Numbers<absl::int128, uint64_t>(contents.uint64_contents());
  return Error("datatype must be an integer one, INT8 to INT64 or UINT8 to UINT64");
}

absl::StatusOr<std::vector<double>> InputTensor::Floats() const {
  const auto& contents = proto_->contents();
  if (datatype() == "FP32") return Numbers<double, float>(contents.fp32_contents());
  if (datatype() == "FP64") return Numbers<double, double>(contents.fp64_contents());
  return Error("datatype must be FP32 or FP64");
}

absl::StatusOr<std::vector<bool>> InputTensor::Booleans() const {
  if (datatype() != "BOOL") return Error("datatype must be BOOL");
  const auto& contents = proto_->contents().bool_contents();
  if (raw_ == nullptr) {
    if (static_cast<size_t>(contents.size()) != elements_) return CountError(contents.size());
    return std::vector<bool>(contents.begin(), contents.end());
  }
  // Not read as bool: only 0 and 1 are values of that type.
  auto bytes = Numbers<bool, uint8_t>(proto_->contents().uint_contents());
  return bytes;
}

absl::StatusOr<std::vector<std::string>> InputTensor::RawBytes() const {
  std::vector<std::string> elements;
  absl::string_view rest = *raw_;
  while (!rest.empty()) {
    uint32_t length = 0;
    if (rest.size() < kLengthBytes) {
      return Error(absl::StrCat("element ", elements.size(), " must begin with its length in ",
                                kLengthBytes, " bytes, got ", rest.size()));
    }
    std::memcpy(&length, rest.data(), kLengthBytes);
    rest.remove_prefix(kLengthBytes);
    if (length > rest.size()) {
      return Error(absl::StrCat("element ", elements.size(), " must have the ", length,
                                " bytes that its length says, got ", rest.size()));
    }
    // One more than there should be is enough to be refused.
    if (elements.size() == elements_) return CountError(elements.size() + 1);
    elements.emplace_back(rest.substr(0, length));
    rest.remove_prefix(length);
  }
  return elements;
}

absl::StatusOr<std::vector<std::string>> InputTensor::Bytes() const {
  if (datatype() != "BYTES") return Error("datatype must be BYTES");
  std::vector<std::string> elements;
  if (raw_ == nullptr) {
    const auto& contents = proto_->contents().bytes_contents();
    elements.assign(contents.begin(), contents.end());
  } else {
    auto raw = RawBytes();
    if (!raw.ok()) return raw.status();
    elements = *std::move(raw);
  }
  if (elements.size() != elements_) return CountError(elements.size());
  return elements;
}

absl::StatusOr<std::vector<std::string>> InputTensor::Texts() const {
  auto texts = Bytes();
  if (!texts.ok()) return texts.status();
  for (size_t i = 0; i < texts->size(); ++i) {
    if (!IsValidUtf8((*texts)[i])) {
      return Error(absl::StrCat("element ", i, " must be valid UTF-8"));
    }
  }
  return texts;
}

absl::StatusOr<std::vector<InputTensor>> ReadTensors(const ModelInferRequest& request) {
  const bool raw = request.raw_input_contents_size() > 0;
  if (request.inputs_size() > kMaxInputs) {
    return FieldError("inputs", absl::StrCat("must be at most ", kMaxInputs, " tensors, got ",
                                             request.inputs_size()));
  }
  if (raw && request.raw_input_contents_size() != request.inputs_size()) {
    return FieldError("raw_input_contents",
                      absl::StrCat("must have one entry for each of the ", request.inputs_size(),
                                   " inputs, got ", request.raw_input_contents_size()));
  }
  std::vector<InputTensor> tensors;
  std::set<absl::string_view> names;
  for (int i = 0; i < request.inputs_size(); ++i) {
    InputTensor tensor;
    tensor.proto_ = &request.inputs(i);
    if (tensor.name().empty() || tensor.name().size() > kMaxNameBytes) {
      return FieldError(
          absl::StrCat("inputs[", i, "].name"),
          absl::StrCat("must be 1 to ", kMaxNameBytes, " bytes, got ", tensor.name().size()));
    }
    if (!names.insert(tensor.name()).second) return tensor.Error("must be given once");
    const int64_t elements = ElementsOf(tensor.shape());
    if (elements < 0 || tensor.shape().size() > kMaxDimensions) {
      return tensor.Error(absl::StrCat("shape must have at most ", kMaxDimensions,
                                       " dimensions of 0 or more and ", kMaxElements, " elements"));
    }
    tensor.elements_ = static_cast<size_t>(elements);
    if (raw) {
      if (HasContents(tensor.proto_->contents())) {
        return tensor.Error("contents must be absent where there are raw_input_contents");
      }
      tensor.raw_ = &request.raw_input_contents(i);
    }
    tensors.push_back(tensor);
  }
  return tensors;
}

}  // namespace hanmo
