// Requests in text format, and what becomes of them with a few models in memory.
#ifndef HANMO_SERVER_RPC_TESTING_REQUEST_PLANS_H_
#define HANMO_SERVER_RPC_TESTING_REQUEST_PLANS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/testing/test_models.h"
#include "server/rpc/violations.h"

namespace hanmo::testing {

inline constexpr char kPaint[] = R"(model: "painter" prompt: "山")";
inline constexpr char kNoInput[] = R"(model: "poet")";

inline const ModelTable& Models() {
  static const ModelTable& models = *[] {
    std::vector<Model> list;
    list.push_back(ByteModel(0, "poet"));
    list.push_back(Painter(1, "painter"));
    list.push_back(BrokenModel(2, "broken"));
    list.push_back(BareModel(3, "bare"));
    list.push_back(Painter(4, "unscored"));
    list.back().spec.picture.reranker_tokens = 0;
    return new ModelTable(std::move(list));
  }();
  return models;
}

inline hanmo::v1::GenerateRequest Proto(const std::string& text) {
  hanmo::v1::GenerateRequest proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto;
}

inline absl::StatusOr<GenerationPlan> Plan(const hanmo::v1::GenerateRequest& proto) {
  auto plan = PlanFromProto(proto, Models());
  if (!plan.ok()) return plan;
  if (auto status = SetPrompts(proto, &*plan); !status.ok()) return status;
  if (auto status = CheckGuide(*plan); !status.ok()) return status;
  return plan;
}

// "field: description" of each violation in the details.
inline std::vector<std::string> ViolationsOf(const absl::Status& status) {
  std::vector<std::string> list;
  google::rpc::BadRequest details;
  const auto payload = status.GetPayload(kBadRequestUrl);
  if (!payload || !details.ParseFromString(std::string(*payload))) return list;
  for (const auto& violation : details.field_violations()) {
    list.push_back(absl::StrCat(violation.field(), ": ", violation.description()));
  }
  return list;
}

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_RPC_TESTING_REQUEST_PLANS_H_
