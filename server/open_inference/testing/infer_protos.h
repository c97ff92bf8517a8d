// Pieces of ModelInferRequests in text format, and what is wrong with them.
#ifndef HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_PROTOS_H_
#define HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_PROTOS_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "server/open_inference/infer_request.h"

namespace hanmo::testing {

inline inference::ModelInferRequest Proto(const std::string& text) {
  inference::ModelInferRequest proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto;
}

// An input in text format.
inline std::string Input(const std::string& name, const std::string& datatype,
                         const std::string& shape, const std::string& contents) {
  return absl::StrCat("inputs { name: '", name, "' datatype: '", datatype, "' shape: [", shape,
                      "] contents { ", contents, " } } ");
}

inline std::string Words(const std::string& name, const std::string& shape,
                         const std::string& words) {
  return Input(name, "BYTES", shape, absl::StrCat("bytes_contents: [", words, "]"));
}

inline std::string Parameter(const std::string& name, const std::string& value) {
  return absl::StrCat("parameters { key: '", name, "' value { ", value, " } } ");
}

inline std::string ErrorOf(const absl::StatusOr<InferPlan>& plan) {
  EXPECT_TRUE(absl::IsInvalidArgument(plan.status())) << plan.status();
  return std::string(plan.status().message());
}

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_PROTOS_H_
