#include "server/open_inference/infer_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/open_inference/model_tensors.h"
#include "server/rpc/generation_call.h"
#include "server/rpc/violations.h"
#include "server/rpc/wire_message.h"

namespace hanmo {

using hanmo::v1::GenerateRequest;
using inference::ModelInferResponse;

namespace {

// They are gathered, and then copied into one message.
constexpr double kMaxPixelBytes = 128 << 20;

absl::Status CheckPixels(const InferPlan& plan, const PictureModelSpec& spec) {
  double bytes = 0;
  for (const GenerateRequest& request : plan.requests) {
    const auto& picture = request.picture();
    const double width = picture.has_width() ? picture.width() : spec.width;
    const double height = picture.has_height() ? picture.height() : spec.height;
    bytes += 3 * width * height * (picture.has_count() ? picture.count() : 1);
  }
  if (bytes <= kMaxPixelBytes) return absl::OkStatus();
  return FieldError(kPixels, absl::StrCat("must be at most ", kMaxPixelBytes, " bytes, got ", bytes,
                                          "; ask for image"));
}

}  // namespace

// One prompt. It lives as long as its sink and may outlive the client's call.
class InferCall::PromptCall final : public GenerationCall {
 public:
  PromptCall(std::shared_ptr<InferCall> call, uint32_t prompt)
      : GenerationCall(call->server_, call->rpc_,
                       call->streams_ ? "inference.GRPCInferenceService/ModelStreamInfer"
                                      : "inference.GRPCInferenceService/ModelInfer"),
        call_(std::move(call)),
        prompt_(prompt) {}

  using GenerationCall::Close;
  using GenerationCall::Wake;

  const std::string& request_id() const { return plan().request_id; }

  void OnStep(uint32_t index, uint32_t step, uint32_t steps) override {
    GenerationCall::OnStep(index, step, steps);
    if (IsTold(step)) call_->Stepped(prompt_, index, step, steps);
  }
  bool full() const override { return call_->client_->full(); }

 private:
  // The call tells it, once for all prompts. By now it is known how many outputs there will be;
  // pictures are encoded side by side, so each has its place from the beginning.
  void Identified(const std::string&) override { pixels_.resize(plan().request.samples.size()); }

  void TextGrew(uint32_t index, const std::string& text, absl::Span<const Token> tokens) override {
    std::vector<uint32_t> ids;
    if (call_->plan_.Wants("token_ids")) {
      for (const Token& token : tokens) ids.push_back(token.id);
    }
    const bool news = !ids.empty() || (!text.empty() && call_->plan_.Wants("text_output"));
    if (call_->in_parts_ && news) call_->TextGrew(prompt_, index, text, ids);
  }
  void PixelsReady(uint32_t place, const Pixels& pixels) override {
    if (call_->plan_.Wants(kPixels)) pixels_[place] = pixels.rgb;
  }
  bool wants_files() const override { return call_->plan_.Wants(kImage); }
  void PictureReady(hanmo::v1::Output* output, std::string file) override {
    output->mutable_picture()->set_data(std::move(file));
  }
  void Send(const absl::Status& status) override {
    call_->PromptEnded(prompt_, status, {std::move(response()), std::move(pixels_)});
  }

  const std::shared_ptr<InferCall> call_;
  const uint32_t prompt_;
  std::vector<std::string> pixels_;  // by output
};

InferCall::InferCall(const CallContext& server, grpc::CallbackServerContext* rpc,
                     std::shared_ptr<Client> client, bool streams)
    : server_(server), rpc_(rpc), client_(std::move(client)), streams_(streams) {}

InferCall::~InferCall() = default;

void InferCall::Begin(const grpc::ByteBuffer& request) {
  // A client that leaves early enough takes its message along.
  BeginPrompts(request.Valid()
                   ? Plan(request)
                   : absl::CancelledError("the call ended before its request was there"));
  Release();
}

absl::Status InferCall::Plan(const grpc::ByteBuffer& request) {
  // Its tensors may be large, and the request may wait for long.
  inference::ModelInferRequest proto;
  if (auto status = ParseMessage(request, &proto); !status.ok()) return status;
  model_name_ = proto.model_name();
  id_ = proto.id();
  auto model =
      FindModel(*server_.models, model_name_, proto.model_version(), "model_name", "model_version");
  if (!model.ok()) return model.status();
  plan_.task = TaskOf(proto, (*model)->spec.kind);
  auto plan = PlanInfer(proto, plan_.task);
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  if (plan_.Wants(kPixels)) {
    if (auto status = CheckPixels(plan_, (*model)->spec.picture); !status.ok()) return status;
  }
  // The one that was found, also where a label moves meanwhile.
  version_ = absl::StrCat((*model)->spec.version);
  for (GenerateRequest& one : plan_.requests) one.set_version(version_);
  in_parts_ = streams_ && plan_.stream;
  const GenerateRequest& first = plan_.requests.front();
  if (first.text().has_n()) outputs_each_ = first.text().n();
  if (first.picture().has_count()) outputs_each_ = first.picture().count();
  if (first.picture().has_best_of()) outputs_each_ = first.picture().best_of();
  return absl::OkStatus();
}

void InferCall::BeginPrompts(const absl::Status& status) {
  // What cannot be read is refused, counted and logged as a request, too.
  std::vector<GenerateRequest> requests = std::move(plan_.requests);
  if (!status.ok()) {
    requests.assign(1, {});
    requests.front().set_model(model_name_);
    requests.front().set_request_id(id_);
  }
  results_.resize(requests.size());
  std::string request_id;
  for (uint32_t i = 0; i < requests.size(); ++i) {
    std::shared_ptr<PromptCall> prompt;
    {
      absl::MutexLock lock(&mu_);
      if (!status_.ok()) return;  // the ones before have shown what is wrong
      prompt = std::make_shared<PromptCall>(shared_from_this(), i);
      prompts_.push_back(prompt);
    }
    parties_.fetch_add(1, std::memory_order_relaxed);
    // The id that was drawn for the first is that of all.
    if (i > 0) requests[i].set_request_id(request_id);
    prompt->Begin(std::move(requests[i]), status, plan_.timeout);
    if (i > 0) continue;
    request_id = prompt->request_id();
    if (!request_id.empty()) client_->Identified(request_id);
  }
}

void InferCall::TextGrew(uint32_t prompt, uint32_t index, const std::string& text,
                         const std::vector<uint32_t>& token_ids) {
  ModelInferResponse response = NewResponse();
  AddTextDelta(plan_, Place(prompt, index), text, token_ids, &response);
  client_->Respond(std::move(response));
}

void InferCall::Stepped(uint32_t prompt, uint32_t index, uint32_t step, uint32_t steps) {
  if (!in_parts_ || (!plan_.Wants("step") && !plan_.Wants("steps"))) return;
  ModelInferResponse response = NewResponse();
  AddStep(plan_, Place(prompt, index), step, steps, &response);
  client_->Respond(std::move(response));
}

void InferCall::PromptEnded(uint32_t prompt, const absl::Status& status, PromptResult result) {
  if (!status.ok()) {
    const auto place = results_.size() > 1 ? std::optional<size_t>(prompt) : std::nullopt;
    Fail(WithTensorNames(status, plan_.task, place));
  } else if (in_parts_) {
    RespondWithEnds(prompt, result);
  } else {
    results_[prompt] = std::move(result);
  }
  Release();
}

void InferCall::RespondWithEnds(uint32_t prompt, const PromptResult& result) {
  for (int i = 0; i < result.response.outputs_size(); ++i) {
    const hanmo::v1::Output& output = result.response.outputs(i);
    const uint32_t place = Place(prompt, output.index());
    ModelInferResponse response = NewResponse();
    if (Writes(plan_.task)) {
      AddTextEnd(plan_, place, output.text(), &response);
    } else {
      AddPicture(plan_, place, output.picture(), result.pixels[i], &response);
    }
    RespondLater(std::move(response));
  }
}

void InferCall::RespondLater(ModelInferResponse response) {
  std::optional<ModelInferResponse> before;
  {
    absl::MutexLock lock(&mu_);
    before = std::exchange(held_, std::move(response));
  }
  if (before) client_->Respond(*std::move(before));
}

void InferCall::Fail(const absl::Status& status) {
  std::vector<std::shared_ptr<PromptCall>> others;
  {
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return;
    status_ = status;
    others = prompts_;
  }
  // There is one answer to all prompts: the rest would be in vain.
  for (const auto& prompt : others) prompt->Cancel(absl::CancelledError("another prompt failed"));
}

void InferCall::Release() {
  if (parties_.fetch_sub(1, std::memory_order_acq_rel) == 1) Complete();
}

void InferCall::Complete() {
  absl::Status status;
  std::optional<ModelInferResponse> last;
  {
    absl::MutexLock lock(&mu_);
    status = status_;
    last = std::exchange(held_, std::nullopt);
  }
  if (last && (!status.ok() || plan_.empty_final_response)) {
    client_->Respond(*std::move(last));
    last.reset();
  }
  ModelInferResponse response = last ? *std::move(last) : NewResponse();
  if (status.ok() && !in_parts_) {
    AddOutputs(plan_, results_, &response);
    if (streams_ && plan_.empty_final_response) {
      client_->Respond(std::exchange(response, NewResponse()));
    }
  }
  if (streams_) {
    (*response.mutable_parameters())["triton_final_response"].set_bool_param(true);
  }
  client_->End(shared_from_this(), status, std::move(response));
}

ModelInferResponse InferCall::NewResponse() const {
  ModelInferResponse response;
  response.set_model_name(model_name_);
  response.set_model_version(version_);
  response.set_id(id_);
  if (streams_) {
    (*response.mutable_parameters())["triton_final_response"].set_bool_param(false);
  }
  return response;
}

std::vector<std::shared_ptr<InferCall::PromptCall>> InferCall::Prompts() {
  absl::MutexLock lock(&mu_);
  return prompts_;
}

void InferCall::Cancel(const absl::Status& reason) {
  for (const auto& prompt : Prompts()) prompt->Cancel(reason);
}

void InferCall::ClientLeft() {
  for (const auto& prompt : Prompts()) prompt->ClientLeft();
}

void InferCall::Wake() {
  for (const auto& prompt : Prompts()) prompt->Wake();
}

void InferCall::Close() {
  std::vector<std::shared_ptr<PromptCall>> prompts;
  {
    absl::MutexLock lock(&mu_);
    prompts.swap(prompts_);  // they hold this call
  }
  for (const auto& prompt : prompts) prompt->Close();
}

}  // namespace hanmo
