// A client of inference.GRPCInferenceService over a real socket, and what it sends and gets.
#ifndef HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_FIXTURE_H_
#define HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_FIXTURE_H_

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "inference/grpc_service.grpc.pb.h"
#include "prometheus/text_serializer.h"
#include "server/rpc/testing/rpc_fixture.h"

namespace hanmo::testing {

inline inference::ModelInferRequest Request(const std::string& text) {
  inference::ModelInferRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

// `more` is in text format.
inline inference::ModelInferRequest TextRequest(const std::vector<std::string>& prompts,
                                                int64_t max_tokens, const std::string& more = "") {
  inference::ModelInferRequest request = Request(
      "model_name: 'poet' inputs { name: 'text_input' "
      "datatype: 'BYTES' contents {} } " +
      more);
  request.mutable_inputs(0)->add_shape(static_cast<int64_t>(prompts.size()));
  for (const std::string& prompt : prompts) {
    request.mutable_inputs(0)->mutable_contents()->add_bytes_contents(prompt);
  }
  (*request.mutable_parameters())["max_tokens"].set_int64_param(max_tokens);
  return request;
}

inline inference::ModelInferRequest PictureRequest(const std::string& more) {
  return Request(
      "model_name: 'painter' inputs { name: 'prompt' datatype: 'BYTES' shape: 1 "
      "contents { bytes_contents: '山' } } " +
      more);
}

// The raw contents of a tensor; null when there is none of that name.
inline const std::string* Tensor(const inference::ModelInferResponse& response,
                                 const std::string& name) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() == name) return &response.raw_output_contents(i);
  }
  return nullptr;
}

// The elements of a BYTES tensor.
inline std::vector<std::string> Texts(const inference::ModelInferResponse& response,
                                      const std::string& name) {
  std::vector<std::string> texts;
  const std::string* raw = Tensor(response, name);
  for (size_t place = 0; raw != nullptr && place + 4 <= raw->size();) {
    uint32_t length = 0;
    std::memcpy(&length, raw->data() + place, 4);
    texts.push_back(raw->substr(place + 4, length));
    place += 4 + length;
  }
  return texts;
}

inline bool IsFinal(const inference::ModelInferResponse& response) {
  return response.parameters().at("triton_final_response").bool_param();
}

class InferFixture : public RpcFixture {
 protected:
  using Stream =
      grpc::ClientReaderWriter<inference::ModelInferRequest, inference::ModelStreamInferResponse>;

  grpc::Status Infer(const inference::ModelInferRequest& request,
                     inference::ModelInferResponse* response) {
    grpc::ClientContext context;
    return inference_->ModelInfer(&context, request, response);
  }

  // All responses to one request on a stream of its own.
  std::vector<inference::ModelInferResponse> Streamed(const inference::ModelInferRequest& request) {
    grpc::ClientContext context;
    auto stream = inference_->ModelStreamInfer(&context);
    stream->Write(request);
    stream->WritesDone();
    std::vector<inference::ModelInferResponse> responses;
    inference::ModelStreamInferResponse response;
    while (stream->Read(&response)) {
      EXPECT_EQ(response.error_message(), "");
      responses.push_back(response.infer_response());
    }
    const grpc::Status status = stream->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return responses;
  }

  std::string MetricsText() {
    return prometheus::TextSerializer().Serialize(front_.metrics().registry()->Collect());
  }

  const std::unique_ptr<inference::GRPCInferenceService::Stub> inference_ =
      inference::GRPCInferenceService::NewStub(channel_);
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_OPEN_INFERENCE_TESTING_INFER_FIXTURE_H_
