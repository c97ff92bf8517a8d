// One ModelInferRequest from its bytes to its tensors: a GenerationCall for each of its prompts, so
// that the batcher shares them as it shares all requests.
#ifndef HANMO_SERVER_OPEN_INFERENCE_INFER_CALL_H_
#define HANMO_SERVER_OPEN_INFERENCE_INFER_CALL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "inference/grpc_service.pb.h"
#include "server/open_inference/infer_request.h"
#include "server/open_inference/infer_response.h"
#include "server/rpc/call_context.h"

namespace hanmo {

class InferCall : public std::enable_shared_from_this<InferCall> {
 public:
  // Who sends what the call makes. The methods are called on any thread, also while Begin runs.
  class Client {
   public:
    virtual ~Client() = default;
    // The request's id, its own or drawn; once, in Begin, unless there is none.
    virtual void Identified(const std::string& request_id) {}
    // One of several responses; only where responses are streamed.
    virtual void Respond(inference::ModelInferResponse response) {}
    // Once and last. On an error `response` has what names the request.
    virtual void End(const std::shared_ptr<InferCall>& call, const absl::Status& status,
                     inference::ModelInferResponse response) = 0;
    // As Sink::full.
    virtual bool full() const { return false; }
  };

  // `server` outlives the call; `rpc` lives until it has ended. `streams`: with responses for
  // parts.
  InferCall(const CallContext& server, grpc::CallbackServerContext* rpc,
            std::shared_ptr<Client> client, bool streams);
  ~InferCall();

  void Begin(const grpc::ByteBuffer& request);

  // These are thread-safe and do nothing once the call has ended.
  void Cancel(const absl::Status& reason);
  void ClientLeft();
  // The client is no longer full.
  void Wake();
  // The last response has been sent or will never be. Once.
  void Close();

 private:
  class PromptCall;

  // Finds the model and reads the request.
  absl::Status Plan(const grpc::ByteBuffer& request);
  void BeginPrompts(const absl::Status& status);

  // From the prompts' calls.
  void TextGrew(uint32_t prompt, uint32_t index, const std::string& text,
                const std::vector<uint32_t>& token_ids);
  void Stepped(uint32_t prompt, uint32_t index, uint32_t step, uint32_t steps);
  void PromptEnded(uint32_t prompt, const absl::Status& status, PromptResult result);

  void RespondWithEnds(uint32_t prompt, const PromptResult& result);
  // Keeps the newest back: the last of them all is marked as such.
  void RespondLater(inference::ModelInferResponse response) ABSL_LOCKS_EXCLUDED(mu_);
  void Fail(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void Release();
  void Complete();
  // Place among the outputs of all prompts.
  uint32_t Place(uint32_t prompt, uint32_t index) const { return prompt * outputs_each_ + index; }
  inference::ModelInferResponse NewResponse() const;
  std::vector<std::shared_ptr<PromptCall>> Prompts() ABSL_LOCKS_EXCLUDED(mu_);

  const CallContext& server_;
  grpc::CallbackServerContext* const rpc_;
  const std::shared_ptr<Client> client_;
  const bool streams_;

  // Written in Begin, then constant.
  std::string model_name_;
  std::string id_;  // as the client gave it
  InferPlan plan_;
  std::string version_;        // of the model, when there is one
  uint32_t outputs_each_ = 1;  // of one prompt
  bool in_parts_ = false;      // responses for parts are sent

  std::vector<PromptResult> results_;  // by prompt, each written by its own call
  std::atomic<uint32_t> parties_{1};   // the prompts under way, and Begin

  absl::Mutex mu_;
  std::vector<std::shared_ptr<PromptCall>> prompts_ ABSL_GUARDED_BY(mu_);
  std::optional<inference::ModelInferResponse> held_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // the first fault
};

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_INFER_CALL_H_
