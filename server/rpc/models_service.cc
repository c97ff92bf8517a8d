#include "server/rpc/models_service.h"

#include "absl/status/status.h"
#include "hanmo/v1/models.pb.h"
#include "server/rpc/proto_duration.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/unary_reply.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

hanmo::v1::ModelState StateOf(ModelPhase phase) {
  switch (phase) {
    case ModelPhase::kLoading:
      return hanmo::v1::MODEL_STATE_LOADING;
    case ModelPhase::kReady:
      return hanmo::v1::MODEL_STATE_READY;
    case ModelPhase::kRecovering:
      return hanmo::v1::MODEL_STATE_RECOVERING;
    case ModelPhase::kFailed:
      return hanmo::v1::MODEL_STATE_FAILED;
    case ModelPhase::kIdle:
      return hanmo::v1::MODEL_STATE_IDLE;
    case ModelPhase::kUnloaded:
      return hanmo::v1::MODEL_STATE_UNLOADED;
  }
  return hanmo::v1::MODEL_STATE_UNSPECIFIED;
}

template <typename Message>
void AddTasks(const ModelSpec& spec, Message* message) {
  message->add_tasks(spec.kind == ModelKind::kText ? hanmo::v1::TASK_TEXT_TO_TEXT
                                                   : hanmo::v1::TASK_TEXT_TO_PICTURE);
  if (spec.kind == ModelKind::kPictureTokens) message->add_tasks(hanmo::v1::TASK_PICTURE_TO_TEXT);
}

void DescribeText(const Model& model, hanmo::v1::TextModel* text) {
  const TextModelSpec& spec = model.spec.text;
  text->set_context_tokens(spec.context_tokens);
  text->set_vocabulary_size(spec.vocabulary_size);
  text->mutable_eos_token_ids()->Add(spec.eos_token_ids.begin(), spec.eos_token_ids.end());
  text->set_has_chat_template(model.chat_template != nullptr);
  text->set_has_thinking_switch(model.chat_template != nullptr &&
                                model.chat_template->has_thinking_switch());
  text->set_default_temperature(spec.temperature);
  text->set_default_top_k(spec.top_k);
  text->set_default_top_p(spec.top_p);
  text->set_default_repetition_penalty(spec.repetition_penalty);
  text->set_default_max_tokens(spec.max_tokens);
}

void DescribePicture(const ModelSpec& model, hanmo::v1::PictureModel* picture) {
  const PictureModelSpec& spec = model.picture;
  picture->set_default_width(spec.width);
  picture->set_default_height(spec.height);
  picture->set_default_steps(spec.steps);
  picture->set_max_steps(spec.max_steps);
  picture->set_max_size(spec.max_size);
  picture->set_prompt_tokens(spec.prompt_tokens);
  picture->set_has_reranker(spec.reranker_tokens > 0);
  if (model.kind == ModelKind::kPictureTokens) {
    picture->set_paints_by_tokens(true);
    picture->set_default_temperature(model.tokens.temperature);
    picture->set_default_top_k(model.tokens.top_k);
    picture->set_default_top_p(model.tokens.top_p);
    picture->set_suggested_best_of(model.tokens.candidates);
    return;
  }
  picture->set_size_multiple(spec.size_multiple);
  picture->set_min_size(spec.size_multiple);
  picture->set_default_guidance(spec.guidance);
  picture->set_default_sampler(spec.sampler);
  for (const std::string& sampler : SamplerNames()) picture->add_samplers(sampler);
}

void DescribeExperts(const LoadedModel& loaded, hanmo::v1::PictureModel* picture) {
  for (const LoadedExpert& expert : loaded.experts) {
    hanmo::v1::Expert* proto = picture->add_experts();
    proto->set_name(expert.name);
    proto->set_t_min(expert.t_min);
    proto->set_t_max(expert.t_max);
  }
  picture->set_resident_experts(loaded.resident_experts);
}

hanmo::v1::StepKind KindOf(StepKind kind) {
  switch (kind) {
    case StepKind::kTextEncode:
      return hanmo::v1::STEP_KIND_TEXT_ENCODE;
    case StepKind::kDenoise:
      return hanmo::v1::STEP_KIND_DENOISE;
    case StepKind::kVaeDecode:
      return hanmo::v1::STEP_KIND_VAE_DECODE;
    case StepKind::kText:
      return hanmo::v1::STEP_KIND_TEXT;
    case StepKind::kPictureEncode:
      return hanmo::v1::STEP_KIND_PICTURE_ENCODE;
  }
  return hanmo::v1::STEP_KIND_UNSPECIFIED;
}

void DescribeCost(const StepCosts::Description& cost, hanmo::v1::StepCost* proto) {
  proto->set_kind(KindOf(cost.key.kind));
  proto->set_width(cost.key.width);
  proto->set_height(cost.key.height);
  SetDuration(cost.one_row, proto->mutable_one_row());
  proto->set_knee_rows(cost.knee);
  SetDuration(cost.knee_rows, proto->mutable_knee_time());
  proto->set_steps(cost.steps);
  proto->set_one_row_bytes(cost.one_row_bytes);
  proto->set_knee_bytes(cost.knee_rows_bytes);
}

}  // namespace

grpc::ServerUnaryReactor* ModelsService::ListModels(grpc::CallbackServerContext* rpc,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  hanmo::v1::ListModelsResponse reply;
  for (const ModelListing& listing : models_.List()) {
    if (listing.versions.empty()) continue;
    hanmo::v1::ModelSummary* summary = reply.add_models();
    summary->set_name(listing.name);
    AddTasks(listing.versions.back().spec, summary);
    summary->set_state(hanmo::v1::MODEL_STATE_UNLOADED);
    for (const ModelListing::Version& version : listing.versions) {
      hanmo::v1::ModelVersion* proto = summary->add_versions();
      proto->set_version(version.spec.version);
      proto->set_state(StateOf(version.phase));
      for (const std::string& label : version.labels) proto->add_labels(label);
      if (version.spec.version != listing.chosen) continue;
      proto->set_is_default(true);
      summary->set_state(proto->state());
    }
  }
  return Reply(rpc, absl::OkStatus(), reply, response);
}

grpc::ServerUnaryReactor* ModelsService::DescribeModel(grpc::CallbackServerContext* rpc,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  hanmo::v1::DescribeModelRequest proto;
  hanmo::v1::DescribeModelResponse reply;
  if (auto status = ParseMessage(*request, &proto); !status.ok()) {
    return Reply(rpc, status, reply, response);
  }
  const auto found = FindModel(models_, proto.name(), proto.version(), "name");
  if (!found.ok()) return Reply(rpc, found.status(), reply, response);
  const Model& model = **found;
  const ModelStatus status = models_.Status(model.spec.id);
  reply.set_name(model.spec.name);
  AddTasks(model.spec, &reply);
  reply.set_state(StateOf(status.phase));
  reply.set_state_detail(status.detail);
  reply.set_architecture(model.spec.architecture);
  reply.set_dtype(status.loaded.dtype);
  reply.set_weight_bytes(status.loaded.weight_bytes);
  reply.set_workers(static_cast<uint32_t>(status.workers.size()));
  reply.set_version(model.spec.version);
  for (const std::string& label : models_.Labels(model.spec)) reply.add_labels(label);
  if (model.spec.status.ok()) {
    if (model.spec.kind != ModelKind::kPicture) DescribeText(model, reply.mutable_text());
    if (model.spec.kind != ModelKind::kText) {
      DescribePicture(model.spec, reply.mutable_picture());
      DescribeExperts(status.loaded, reply.mutable_picture());
    }
  }
  for (const StepCosts::Description& cost : figures_.Costs(model.spec.id)) {
    DescribeCost(cost, reply.add_step_costs());
  }
  return Reply(rpc, absl::OkStatus(), reply, response);
}

}  // namespace hanmo
