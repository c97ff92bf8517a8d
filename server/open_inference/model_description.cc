#include "server/open_inference/model_description.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/open_inference/model_tensors.h"

namespace hanmo {
namespace {

inference::DataType DataTypeOf(absl::string_view datatype) {
  inference::DataType type = inference::TYPE_INVALID;
  inference::DataType_Parse(datatype == "BYTES" ? "TYPE_STRING" : absl::StrCat("TYPE_", datatype),
                            &type);
  return type;
}

void DescribeTensor(const TensorSpec& tensor,
                    inference::ModelMetadataResponse::TensorMetadata* metadata) {
  metadata->set_name(tensor.name);
  metadata->set_datatype(std::string(tensor.datatype));
  metadata->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
}

// The configuration counts the prompts elsewhere.
template <typename Config>
void ConfigureTensor(const TensorSpec& tensor, Config* config) {
  config->set_name(tensor.name);
  config->set_data_type(DataTypeOf(tensor.datatype));
  config->mutable_dims()->Add(tensor.shape.begin() + 1, tensor.shape.end());
}

void SetDuration(const ModelTotals::Sum& sum, inference::StatisticDuration* duration) {
  duration->set_count(sum.count);
  duration->set_ns(sum.nanoseconds);
}

}  // namespace

void DescribeMetadata(const ModelSpec& spec, inference::ModelMetadataResponse* response) {
  response->set_name(spec.name);
  response->set_platform("hanmo");
  (*response->mutable_properties())["architecture"] = spec.architecture;
  for (const TensorSpec& tensor : InputsOf(spec.kind)) {
    DescribeTensor(tensor, response->add_inputs());
  }
  for (const TensorSpec& tensor : OutputsOf(spec.kind)) {
    DescribeTensor(tensor, response->add_outputs());
  }
}

void DescribeConfig(const ModelSpec& spec, inference::ModelConfig* config) {
  config->set_name(spec.name);
  config->set_platform("hanmo");
  config->set_backend("hanmo");
  config->set_max_batch_size(kMaxPrompts);
  config->mutable_dynamic_batching();
  config->mutable_model_transaction_policy()->set_decoupled(true);
  for (const TensorSpec& tensor : InputsOf(spec.kind)) {
    inference::ModelInput* input = config->add_input();
    ConfigureTensor(tensor, input);
    // The words of a text may come as token ids, and where pictures are read there may be no words.
    input->set_optional(spec.kind != ModelKind::kPicture || tensor.name != kPrompt);
  }
  for (const TensorSpec& tensor : OutputsOf(spec.kind))
    ConfigureTensor(tensor, config->add_output());
}

void DescribeStatistics(const ModelSpec& spec, const Figures& figures,
                        inference::ModelStatistics* statistics) {
  statistics->set_name(spec.name);
  statistics->set_version(absl::StrCat(spec.version));
  const ModelTotals* found = figures.Totals(spec.name);
  if (found == nullptr) return;
  const ModelTotals& totals = *found;
  statistics->set_last_inference(totals.last_request_ms());
  const ModelTotals::Sum success = totals.success();
  statistics->set_inference_count(success.count);
  inference::InferStatistics* sums = statistics->mutable_inference_stats();
  SetDuration(success, sums->mutable_success());
  SetDuration(totals.fail(), sums->mutable_fail());
  SetDuration(totals.queue(), sums->mutable_queue());
  SetDuration(totals.input(), sums->mutable_compute_input());
  SetDuration(totals.output(), sums->mutable_compute_output());
  ModelTotals::Sum all;
  for (uint32_t rows = 1; rows <= ModelTotals::kMaxRows; ++rows) {
    const ModelTotals::Sum steps = totals.steps_of(rows);
    if (steps.count == 0) continue;
    all.count += steps.count;
    all.nanoseconds += steps.nanoseconds;
    inference::InferBatchStatistics* batch = statistics->add_batch_stats();
    batch->set_batch_size(rows);
    SetDuration(steps, batch->mutable_compute_infer());
  }
  SetDuration(all, sums->mutable_compute_infer());
  statistics->set_execution_count(all.count);
}

void DescribeIndex(const ModelListing::Version& version, const std::string& detail,
                   inference::RepositoryIndexResponse::ModelIndex* index) {
  index->set_name(version.spec.name);
  index->set_version(absl::StrCat(version.spec.version));
  switch (version.phase) {
    case ModelPhase::kReady:
    case ModelPhase::kIdle:  // the next request loads it
      return index->set_state("READY");
    case ModelPhase::kLoading:
      return index->set_state("LOADING");
    case ModelPhase::kRecovering:
      index->set_reason("its workers are being restarted");
      return index->set_state("LOADING");
    case ModelPhase::kFailed:
      index->set_reason(detail);
      return index->set_state("UNAVAILABLE");
    case ModelPhase::kUnloaded:
      index->set_reason("unloaded");
      return index->set_state("UNAVAILABLE");
  }
}

}  // namespace hanmo
