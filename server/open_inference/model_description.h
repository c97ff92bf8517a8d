// What the protocol tells about models.
#ifndef HANMO_SERVER_OPEN_INFERENCE_MODEL_DESCRIPTION_H_
#define HANMO_SERVER_OPEN_INFERENCE_MODEL_DESCRIPTION_H_

#include <string>

#include "inference/grpc_service.pb.h"
#include "server/repository.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/figures.h"

namespace hanmo {

// Without its versions.
void DescribeMetadata(const ModelSpec& spec, inference::ModelMetadataResponse* response);
void DescribeConfig(const ModelSpec& spec, inference::ModelConfig* config);
void DescribeStatistics(const ModelSpec& spec, const Figures& figures,
                        inference::ModelStatistics* statistics);
// `detail` says what is wrong with a version that failed.
void DescribeIndex(const ModelListing::Version& version, const std::string& detail,
                   inference::RepositoryIndexResponse::ModelIndex* index);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_MODEL_DESCRIPTION_H_
