#include "server/rpc/wire_message.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/slice.h"
#include "server/rpc/violations.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// No contract of ours nests deeper; bounds the recursion on hostile bytes.
constexpr int kMaxDepth = 8;

// Path of the first string field that is not UTF-8; empty when there is none. The bytes are read
// without their schema, as the real parser refuses them.
std::string FindInvalidUtf8(const Descriptor& type, const std::string& bytes, int depth) {
  UnknownFieldSet fields;
  if (depth > kMaxDepth || !fields.ParseFromString(bytes)) return "";
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* descriptor = type.FindFieldByNumber(field.number());
    if (descriptor == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    if (descriptor->type() == FieldDescriptor::TYPE_STRING) {
      if (!IsValidUtf8(field.length_delimited())) return descriptor->name();
    } else if (descriptor->type() == FieldDescriptor::TYPE_MESSAGE) {
      const std::string inner =
          FindInvalidUtf8(*descriptor->message_type(), field.length_delimited(), depth + 1);
      if (!inner.empty()) return absl::StrCat(descriptor->name(), ".", inner);
    }
  }
  return "";
}

std::string Flatten(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& buffer, google::protobuf::Message* message) {
  // The reader only consumes its own view of the slices.
  grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&buffer));
  if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  const Descriptor& type = *message->GetDescriptor();
  const std::string field = FindInvalidUtf8(type, Flatten(buffer), 0);
  if (!field.empty()) return FieldError(field, "must be valid UTF-8");
  return absl::InvalidArgumentError(absl::StrCat("the request is not a ", type.full_name()));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace hanmo
