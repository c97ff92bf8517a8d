// The weights of one model component as published: a folder with config.json and *.safetensors or
// *.bin files, whole or sharded. Model code opens it, takes its tensors by name, and asks at the
// end what was left over.
#ifndef HANMO_WORKERS_CHECKPOINT_CHECKPOINT_H_
#define HANMO_WORKERS_CHECKPOINT_CHECKPOINT_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "workers/checkpoint/tensor_file.h"

namespace hanmo {

struct CheckpointOptions {
  // Floating-point tensors are served in this type on this device.
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  // Prefers files such as model.fp16.safetensors ("fp16") where they exist.
  std::string variant;
};

// Use from one thread. Tensors it has given out keep the mapped file alive and outlive it.
// at:: functions may throw (out of memory); the worker's executor catches at its border.
class Checkpoint {
 public:
  // Finds, in this order: {diffusion_pytorch_model,model}.safetensors, their
  // .safetensors.index.json, {diffusion_pytorch_model,pytorch_model}.bin, their .bin.index.json;
  // each with the variant first ("model.fp16.safetensors"). NOT_FOUND without any of them,
  // INVALID_ARGUMENT for torn files, missing shards, and an index that names a file outside the
  // folder or a tensor that its shard lacks. config() is the folder's config.json, an empty object
  // when there is none.
  static absl::StatusOr<Checkpoint> Open(const std::string& folder, CheckpointOptions options = {});

  // The same for one file (a training checkpoint *.ckpt, or a lone *.safetensors).
  static absl::StatusOr<Checkpoint> OpenFile(const std::string& path,
                                             CheckpointOptions options = {});

  const nlohmann::json& config() const { return config_; }
  const CheckpointOptions& options() const { return options_; }
  // For a folder that shares another one's.
  void SetConfig(nlohmann::json config) { config_ = std::move(config); }

  bool Has(absl::string_view name) const;
  // NOT_FOUND names the tensor and the folder.
  absl::StatusOr<std::vector<int64_t>> Shape(absl::string_view name) const;

  // OK when both have the same tensors in the same shapes; INVALID_ARGUMENT names the first that
  // differs, and both folders.
  absl::Status CheckShapes(const Checkpoint& other) const;

  // Renames every tensor: old key spellings, prefixes. An empty result drops the tensor silently.
  // INVALID_ARGUMENT when two tensors get one name. Call before the first Take.
  absl::Status Rename(absl::FunctionRef<std::string(absl::string_view)> new_name);

  // The tensor in the serving type and on the serving device. Must not be written to: where the
  // file already has that type on the CPU, it is the mapped file itself. A tensor may be taken
  // twice (tied weights). NOT_FOUND or INVALID_ARGUMENT name the tensor, the expected and found
  // shape and type, and the file.
  absl::StatusOr<at::Tensor> Take(absl::string_view name, at::IntArrayRef shape);
  // In `dtype` instead of the serving type. Floating-point types convert into each other; integers
  // and bool must match exactly.
  absl::StatusOr<at::Tensor> TakeAs(absl::string_view name, at::IntArrayRef shape,
                                    at::ScalarType dtype);

  // Names never taken, sorted, without those that hold no weight: attention mask buffers
  // (".attn.bias", ".attn.masked_bias"), "position_ids", "num_batches_tracked".
  std::vector<std::string> Unused() const;
  // Memory of the tensors taken so far, each once, in the serving type.
  uint64_t taken_bytes() const;
  // The same of all tensors.
  uint64_t bytes() const;

 private:
  struct Weight {
    TensorEntry entry;
    std::shared_ptr<const MappedFile> file;
    bool taken = false;
  };

  Checkpoint(std::string origin, CheckpointOptions options);
  absl::Status AddFile(TensorFile file);
  absl::Status AddShards(const std::string& index_path);
  at::Tensor Read(const Weight& weight, at::ScalarType dtype) const;
  uint64_t ServedBytes(const Weight& weight) const;

  std::string origin_;  // the folder or file, for messages
  CheckpointOptions options_;
  nlohmann::json config_ = nlohmann::json::object();
  std::map<std::string, Weight, std::less<>> weights_;
};

// Takes tensors below a prefix and remembers the first error, so that the constructors of nested
// blocks stay free of error plumbing:
//   WeightScope weights(checkpoint);
//   Unet unet(weights);                       // weights.Sub("conv_in").Take("weight", {320, 4, 3,
//   3}) if (!weights.status().ok()) return weights.status();
// After an error Take returns zeros of the asked shape that occupy no memory. Cheap to copy;
// copies share the status. The checkpoint must outlive it.
class WeightScope {
 public:
  explicit WeightScope(Checkpoint& checkpoint);

  // Names below "<prefix>.<part>.".
  WeightScope Sub(absl::string_view part) const;
  WeightScope Sub(absl::string_view part, int64_t index) const;  // "<part>.<index>"

  at::Tensor Take(absl::string_view name, at::IntArrayRef shape) const;
  at::Tensor TakeAs(absl::string_view name, at::IntArrayRef shape, at::ScalarType dtype) const;
  bool Has(absl::string_view name) const;
  // The shape as found; empty and an error in status() when there is no such tensor.
  std::vector<int64_t> Shape(absl::string_view name) const;

  // Records an error of the caller's own (a bad config field) unless one is recorded already.
  void Fail(absl::Status status) const;
  const absl::Status& status() const { return *status_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }

 private:
  Checkpoint* checkpoint_;
  std::string prefix_;
  std::shared_ptr<absl::Status> status_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_CHECKPOINT_H_
