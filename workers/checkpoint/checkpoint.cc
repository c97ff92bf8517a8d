#include "workers/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;

// One chunk of a conversion: small beside any model, large beside the cost of a call.
constexpr int64_t kChunkElements = 1 << 20;
constexpr uintmax_t kMaxJsonBytes = 64 << 20;

// Buffers that old exporters saved although they hold no weight.
constexpr absl::string_view kIgnorable[] = {".attn.bias", ".attn.masked_bias", "position_ids",
                                            "num_batches_tracked"};

at::ScalarType ScalarTypeOf(ElementType type) {
  switch (type) {
    case ElementType::kFloat64:
      return at::kDouble;
    case ElementType::kFloat32:
      return at::kFloat;
    case ElementType::kFloat16:
      return at::kHalf;
    case ElementType::kBFloat16:
      return at::kBFloat16;
    case ElementType::kInt64:
      return at::kLong;
    case ElementType::kInt32:
      return at::kInt;
    case ElementType::kInt16:
      return at::kShort;
    case ElementType::kInt8:
      return at::kChar;
    case ElementType::kUint8:
      return at::kByte;
    case ElementType::kBool:
      return at::kBool;
  }
  return at::kFloat;
}

std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<nlohmann::json> ReadJsonObject(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
  if (size > kMaxJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", size, " bytes, at most ", kMaxJsonBytes, " are read"));
  }
  std::ifstream in(path, std::ios::binary);
  auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  }
  return json;
}

// "model.safetensors" -> "model.fp16.safetensors"; an index puts its variant last:
// "model.safetensors.index.json" -> "model.safetensors.index.fp16.json".
std::string WithVariant(const std::string& file, const std::string& variant) {
  const size_t dot = file.rfind('.');
  return absl::StrCat(file.substr(0, dot), ".", variant, file.substr(dot));
}

std::optional<fs::path> FindWeights(const fs::path& folder, const std::string& variant) {
  constexpr const char* kFiles[] = {"diffusion_pytorch_model.safetensors",
                                    "model.safetensors",
                                    "diffusion_pytorch_model.safetensors.index.json",
                                    "model.safetensors.index.json",
                                    "diffusion_pytorch_model.bin",
                                    "pytorch_model.bin",
                                    "diffusion_pytorch_model.bin.index.json",
                                    "pytorch_model.bin.index.json"};
  std::error_code error;
  for (const char* file : kFiles) {
    if (!variant.empty() && fs::exists(folder / WithVariant(file, variant), error)) {
      return folder / WithVariant(file, variant);
    }
    if (fs::exists(folder / file, error)) return folder / file;
  }
  return std::nullopt;
}

bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." && !absl::StrContains(name, '/') &&
         name.find('\0') == absl::string_view::npos;
}

}  // namespace

Checkpoint::Checkpoint(std::string origin, CheckpointOptions options)
    : origin_(std::move(origin)), options_(std::move(options)) {}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder, CheckpointOptions options) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat(folder, ": not a folder"));
  }
  const auto weights = FindWeights(folder, options.variant);
  if (!weights.has_value()) {
    return absl::NotFoundError(absl::StrCat(folder,
                                            ": no weights (model.safetensors, pytorch_model.bin, "
                                            "diffusion_pytorch_model.safetensors or .bin)"));
  }
  Checkpoint checkpoint(folder, std::move(options));
  if (const fs::path config = fs::path(folder) / "config.json"; fs::exists(config, error)) {
    HANMO_ASSIGN_OR_RETURN(checkpoint.config_, ReadJsonObject(config));
  }
  if (weights->extension() == ".json") {
    HANMO_RETURN_IF_ERROR(checkpoint.AddShards(weights->string()));
  } else {
    HANMO_ASSIGN_OR_RETURN(TensorFile file, OpenTensorFile(weights->string()));
    HANMO_RETURN_IF_ERROR(checkpoint.AddFile(std::move(file)));
  }
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenFile(const std::string& path,
                                                CheckpointOptions options) {
  Checkpoint checkpoint(path, std::move(options));
  HANMO_ASSIGN_OR_RETURN(TensorFile file, OpenTensorFile(path));
  HANMO_RETURN_IF_ERROR(checkpoint.AddFile(std::move(file)));
  return checkpoint;
}

absl::Status Checkpoint::AddFile(TensorFile file) {
  for (TensorEntry& entry : file.tensors) {
    std::string name = entry.name;
    const bool added = weights_.emplace(name, Weight{std::move(entry), file.file}).second;
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.file->path(), ": tensor ", name, " appears twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& index_path) {
  HANMO_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonObject(index_path));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": no object \"weight_map\""));
  }
  std::map<std::string, std::set<std::string>> names_by_shard;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": the shard of ", name,
                                                     " is not the name of a file in the folder"));
    }
    names_by_shard[shard.get_ref<const std::string&>()].insert(name);
  }
  for (auto& [shard, names] : names_by_shard) {
    const std::string path = (fs::path(index_path).parent_path() / shard).string();
    HANMO_ASSIGN_OR_RETURN(TensorFile file, OpenTensorFile(path));
    // Only what the index places here: some exporters leave copies in other shards.
    std::erase_if(file.tensors, [&](const TensorEntry& t) { return names.erase(t.name) == 0; });
    if (!names.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", *names.begin(), " is missing, but ",
                       fs::path(index_path).filename().string(), " places it here"));
    }
    HANMO_RETURN_IF_ERROR(AddFile(std::move(file)));
  }
  return absl::OkStatus();
}

bool Checkpoint::Has(absl::string_view name) const { return weights_.find(name) != weights_.end(); }

absl::StatusOr<std::vector<int64_t>> Checkpoint::Shape(absl::string_view name) const {
  const auto it = weights_.find(name);
  if (it == weights_.end()) {
    return absl::NotFoundError(absl::StrCat(origin_, ": no tensor ", name));
  }
  return it->second.entry.shape;
}

absl::Status Checkpoint::CheckShapes(const Checkpoint& other) const {
  const auto differs = [&](const std::string& name, const std::string& mine,
                           const std::string& others) {
    return absl::InvalidArgumentError(absl::StrCat(origin_, ": tensor ", name, " ", mine, ", in ",
                                                   other.origin_, " it ", others));
  };
  for (const auto& [name, weight] : weights_) {
    const auto found = other.weights_.find(name);
    if (found == other.weights_.end()) return differs(name, "is there", "is missing");
    if (found->second.entry.shape == weight.entry.shape) continue;
    return differs(name, absl::StrCat("has shape ", ShapeText(weight.entry.shape)),
                   absl::StrCat("has ", ShapeText(found->second.entry.shape)));
  }
  for (const auto& [name, weight] : other.weights_) {
    if (!Has(name)) return differs(name, "is missing", "is there");
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Rename(absl::FunctionRef<std::string(absl::string_view)> new_name) {
  std::map<std::string, Weight, std::less<>> renamed;
  for (auto& [name, weight] : weights_) {
    std::string to = new_name(name);
    if (to.empty()) continue;
    if (!renamed.emplace(to, std::move(weight)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(origin_, ": ", name, " and another tensor both mean ", to));
    }
  }
  weights_ = std::move(renamed);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Checkpoint::Take(absl::string_view name, at::IntArrayRef shape) {
  return TakeAs(name, shape, options_.dtype);
}

absl::StatusOr<at::Tensor> Checkpoint::TakeAs(absl::string_view name, at::IntArrayRef shape,
                                              at::ScalarType dtype) {
  const auto it = weights_.find(name);
  if (it == weights_.end()) {
    return absl::NotFoundError(absl::StrCat(origin_, ": no tensor ", name, ", expected with shape ",
                                            ShapeText({shape.data(), shape.size()})));
  }
  Weight& weight = it->second;
  const TensorEntry& entry = weight.entry;
  if (at::IntArrayRef(entry.shape) != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(weight.file->path(), ": tensor ", name, " has shape ", ShapeText(entry.shape),
                     ", expected ", ShapeText({shape.data(), shape.size()})));
  }
  const at::ScalarType found = ScalarTypeOf(entry.type);
  const bool convertible = at::isFloatingType(found) && at::isFloatingType(dtype);
  if (found != dtype && !convertible) {
    return absl::InvalidArgumentError(absl::StrCat(weight.file->path(), ": tensor ", name,
                                                   " has type ", ElementTypeName(entry.type),
                                                   ", expected ", at::toString(dtype)));
  }
  weight.taken = true;
  return Read(weight, dtype);
}

at::Tensor Checkpoint::Read(const Weight& weight, at::ScalarType dtype) const {
  const TensorEntry& entry = weight.entry;
  const MappedFile& file = *weight.file;
  const at::ScalarType found = ScalarTypeOf(entry.type);
  const size_t element = ElementSize(entry.type);
  if (entry.elements() == 0) {
    return at::empty(entry.shape, at::dtype(dtype).device(options_.device));
  }
  auto* data = const_cast<uint8_t*>(file.bytes().data()) + entry.offset;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % element == 0;
  if (found == dtype && aligned && options_.device.is_cpu()) {
    return at::from_blob(
        data, entry.shape, entry.strides, [keep = weight.file](void*) mutable { keep.reset(); },
        at::dtype(found));
  }
  at::Tensor out = at::empty(entry.shape, at::dtype(dtype).device(options_.device));
  if (!entry.contiguous()) {
    const at::Tensor source = at::from_blob(data, entry.shape, entry.strides, at::dtype(found));
    out.copy_(aligned ? source : source.clone());
    return out;
  }
  at::Tensor flat = out.view({-1});
  for (int64_t begin = 0; begin < entry.elements(); begin += kChunkElements) {
    const int64_t count = std::min(kChunkElements, entry.elements() - begin);
    const uint64_t skip = static_cast<uint64_t>(begin) * element;
    at::Tensor chunk;
    if (aligned) {
      chunk = at::from_blob(data + skip, {count}, at::dtype(found));
    } else {
      chunk = at::empty({count}, at::dtype(found));
      std::copy_n(data + skip, count * element, static_cast<uint8_t*>(chunk.data_ptr()));
    }
    flat.narrow(0, begin, count).copy_(chunk);
    file.Release(entry.offset + skip, count * element);
  }
  return out;
}

std::vector<std::string> Checkpoint::Unused() const {
  std::vector<std::string> unused;
  for (const auto& [name, weight] : weights_) {
    const bool ignorable =
        std::any_of(std::begin(kIgnorable), std::end(kIgnorable),
                    [&name = name](absl::string_view end) { return absl::EndsWith(name, end); });
    if (!weight.taken && !ignorable) unused.push_back(name);
  }
  return unused;
}

uint64_t Checkpoint::taken_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, weight] : weights_) {
    if (weight.taken) bytes += ServedBytes(weight);
  }
  return bytes;
}

uint64_t Checkpoint::bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, weight] : weights_) bytes += ServedBytes(weight);
  return bytes;
}

uint64_t Checkpoint::ServedBytes(const Weight& weight) const {
  const at::ScalarType stored = ScalarTypeOf(weight.entry.type);
  const at::ScalarType served = at::isFloatingType(stored) ? options_.dtype : stored;
  return weight.entry.elements() * c10::elementSize(served);
}

}  // namespace hanmo
