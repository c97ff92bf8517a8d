#include "server/repository.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/ernie_vilg_folder.h"
#include "server/json_file.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;

// Above this tokenizers write "unlimited" as an astronomic length.
constexpr double kMaxPromptTokens = 65536;

// transformers' model types that workers serve, and the class that each is generated with.
constexpr std::pair<const char*, const char*> kTextModels[] = {
    {"ernie4_5", "Ernie4_5ForCausalLM"},
    {"gpt2", "GPT2LMHeadModel"},
    {"llama", "LlamaForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
};

// What config.json says itself, else what its model_type stands for.
std::string ArchitectureOf(const JsonFile& config) {
  const nlohmann::json* list = config.Find("architectures");
  if (list != nullptr && list->is_array() && !list->empty() && (*list)[0].is_string()) {
    return (*list)[0].get<std::string>();
  }
  for (const auto& [type, architecture] : kTextModels) {
    if (config.Text("model_type") == type) return architecture;
  }
  return "";
}

void CheckServed(const std::string& architecture, JsonFile* config) {
  std::string known;
  for (const auto& [type, served] : kTextModels) {
    if (architecture == served || config->Text("model_type") == type) return;
    absl::StrAppend(&known, known.empty() ? "" : ", ", served);
  }
  config->Fail(absl::StrCat("has the architecture \"", architecture, "\"; served are ", known));
}

absl::Status ReadTextModel(const fs::path& folder, ModelSpec* spec) {
  spec->kind = ModelKind::kText;
  JsonFile config(folder, "config.json", true);
  JsonFile generation(folder, "generation_config.json", false);
  spec->architecture = ArchitectureOf(config);
  if (config.status().ok()) CheckServed(spec->architecture, &config);
  TextModelSpec& text = spec->text;
  text.context_tokens = config.Count({"n_positions", "n_ctx", "max_position_embeddings"});
  text.vocabulary_size = config.Count({"vocab_size"});
  text.eos_token_ids = generation.Ids("eos_token_id");
  if (text.eos_token_ids.empty()) text.eos_token_ids = config.Ids("eos_token_id");
  // An end that the model cannot write would break every request's sampling.
  for (uint32_t id : text.eos_token_ids) {
    if (config.status().ok() && id >= text.vocabulary_size) {
      config.Fail(absl::StrCat("has eos_token_id ", id, " outside its vocabulary of ",
                               text.vocabulary_size));
    }
  }
  text.temperature = static_cast<float>(generation.Number("temperature", 1, 0, 100));
  text.top_k = static_cast<uint32_t>(generation.Number("top_k", 0, 0, 1 << 28));
  text.top_p = static_cast<float>(generation.Number("top_p", 1, 1e-6, 1));
  text.repetition_penalty =
      static_cast<float>(generation.Number("repetition_penalty", 1, 0.001, 10));
  const uint32_t half = std::max(1u, text.context_tokens / 2);
  text.max_tokens =
      static_cast<uint32_t>(generation.Number("max_new_tokens", std::min(256u, half), 1, 1 << 28));
  return config.status().ok() ? generation.status() : config.status();
}

// diffusers' classes and our names for them.
const std::vector<std::pair<std::string, std::string>>& Schedulers() {
  static const auto& schedulers = *new std::vector<std::pair<std::string, std::string>>{
      {"DDIMScheduler", "ddim"},
      {"PNDMScheduler", "pndm"},
      {"EulerDiscreteScheduler", "euler"},
      {"EulerAncestralDiscreteScheduler", "euler_a"},
      {"DPMSolverMultistepScheduler", "dpmpp_2m"},
      {"LCMScheduler", "lcm"},
      {"UniPCMultistepScheduler", "unipc"}};
  return schedulers;
}

// Checkpoints older than diffusers 0.9 state a wrong sample_size; its pipelines read 64 there.
bool IsBeforeDiffusers09(const std::string& version) {
  const std::vector<std::string> parts = absl::StrSplit(version, '.');
  int minor = 0;
  return parts.size() >= 2 && parts[0] == "0" && absl::SimpleAtoi(parts[1], &minor) && minor < 9;
}

void ReadPictureSize(const fs::path& folder, JsonFile* unet, JsonFile* vae,
                     PictureModelSpec* picture) {
  const nlohmann::json* blocks = vae->Find("block_out_channels");
  if (blocks == nullptr || !blocks->is_array() || blocks->empty() || blocks->size() > 8) {
    return vae->Fail("lacks block_out_channels, a list of 1 to 8 widths");
  }
  const uint32_t factor = 1u << (blocks->size() - 1);
  uint32_t height = 64;
  uint32_t width = 64;
  const nlohmann::json* size = unet->Find("sample_size");
  const auto in_range = [](const nlohmann::json& side) {
    return side.is_number_unsigned() && side.get<uint64_t>() >= 1 && side.get<uint64_t>() <= 4096;
  };
  if (size != nullptr && size->is_array() && size->size() == 2 && in_range((*size)[0]) &&
      in_range((*size)[1])) {
    height = (*size)[0].get<uint32_t>();
    width = (*size)[1].get<uint32_t>();
  } else if (size != nullptr && in_range(*size)) {
    height = width = size->get<uint32_t>();
    if (width < 64 && IsBeforeDiffusers09(unet->Text("_diffusers_version"))) height = width = 64;
  } else if (size != nullptr) {
    return unet->Fail("has a bad sample_size");
  }
  picture->size_multiple = std::max(8u, factor);
  const auto pixels = [&](uint32_t latent) {
    return std::max(latent * factor / picture->size_multiple, 1u) * picture->size_multiple;
  };
  picture->height = pixels(height);
  picture->width = pixels(width);
  picture->max_size = std::max({picture->max_size, picture->height, picture->width});
}

absl::Status FirstError(const std::vector<const JsonFile*>& files) {
  for (const JsonFile* file : files) {
    if (!file->status().ok()) return file->status();
  }
  return absl::OkStatus();
}

// The limits of the CLIP model that scores pictures; docs/reranker.md has the layouts.
absl::Status ReadReranker(const fs::path& folder, const JsonFile& index,
                          PictureModelSpec* picture) {
  const nlohmann::json* entry = index.Find("reranker");
  // diffusers writes [null, null] for a part that a pipeline does without.
  if (entry == nullptr || *entry == nlohmann::json({nullptr, nullptr})) return absl::OkStatus();
  const bool pair = entry->is_array() && entry->size() == 2 && (*entry)[1].is_string();
  const std::string name = pair ? (*entry)[1].get<std::string>() : "";
  const bool combined = name == "ChineseCLIPModel" || name == "TaiyiCLIPModel";
  if (!combined && name != "BertForSequenceClassification") {
    return absl::InvalidArgumentError(
        absl::StrCat("model_index.json has the reranker \"", name,
                     "\"; ChineseCLIPModel, TaiyiCLIPModel and BertForSequenceClassification are "
                     "served"));
  }
  JsonFile config(folder, "reranker/config.json", true);
  JsonFile tokenizer(folder, "reranker/tokenizer_config.json", false);
  if (combined && config.status().ok()) config.Enter("text_config");
  picture->reranker_vocabulary = config.Count({"vocab_size"});
  const double longest = tokenizer.Number("model_max_length", kMaxPromptTokens, 2, HUGE_VAL);
  picture->reranker_tokens =
      static_cast<uint32_t>(std::min<double>(config.Count({"max_position_embeddings"}), longest));
  return FirstError({&config, &tokenizer});
}

// The first of the experts' folders that has one: it serves all of them. Without experts unet's.
std::string UnetConfigFile(const fs::path& folder, const JsonFile& index) {
  const nlohmann::json* experts = index.Find("experts");
  if (experts == nullptr || !experts->is_array()) return "unet/config.json";
  for (const nlohmann::json& expert : *experts) {
    if (!expert.is_object() || !expert.contains("subfolder")) continue;
    if (!expert["subfolder"].is_string()) continue;
    // A path that leads elsewhere is refused by the worker; here it leads nowhere.
    const fs::path file = fs::path(expert["subfolder"].get<std::string>()).filename();
    std::error_code error;
    if (fs::exists(folder / file / "config.json", error)) return (file / "config.json").string();
  }
  return "unet/config.json";
}

absl::Status ReadStableDiffusion(const fs::path& folder, ModelSpec* spec) {
  spec->kind = ModelKind::kPicture;
  JsonFile index(folder, "model_index.json", true);
  JsonFile unet(folder, UnetConfigFile(folder, index), true);
  JsonFile vae(folder, "vae/config.json", true);
  JsonFile text(folder, "text_encoder/config.json", true);
  JsonFile tokenizer(folder, "tokenizer/tokenizer_config.json", false);
  JsonFile scheduler(folder, "scheduler/scheduler_config.json", true);
  // The publisher's wishes, with diffusers' names of the arguments.
  JsonFile generation(folder, "generation_config.json", false);

  PictureModelSpec& picture = spec->picture;
  ReadPictureSize(folder, &unet, &vae, &picture);
  picture.vocabulary_size = text.Count({"vocab_size"});
  picture.prompt_tokens = text.Count({"max_position_embeddings"});
  const double longest = tokenizer.Number("model_max_length", kMaxPromptTokens, 1, HUGE_VAL);
  picture.prompt_tokens = static_cast<uint32_t>(std::min<double>(picture.prompt_tokens, longest));
  picture.sampler = "ddim";
  for (const auto& [class_name, sampler] : Schedulers()) {
    if (class_name == scheduler.Text("_class_name")) picture.sampler = sampler;
  }
  if (picture.sampler == "lcm") picture.steps = 4;
  picture.steps = static_cast<uint32_t>(
      generation.Number("num_inference_steps", picture.steps, 1, picture.max_steps));
  picture.guidance = static_cast<float>(generation.Number("guidance_scale", 7.5, 0, 100));
  return FirstError({&unet, &vae, &text, &tokenizer, &scheduler, &generation});
}

absl::Status ReadPictureModel(const fs::path& folder, ModelSpec* spec) {
  spec->kind = ModelKind::kPicture;
  JsonFile index(folder, "model_index.json", true);
  spec->architecture = index.Text("_class_name");
  const bool by_tokens = spec->architecture == "ErnieViLGPipeline";
  if (index.status().ok() && !by_tokens && spec->architecture != "StableDiffusionPipeline" &&
      spec->architecture != "ErnieViLG2Pipeline") {
    index.Fail(absl::StrCat("has the pipeline \"", spec->architecture,
                            "\"; StableDiffusionPipeline, ErnieViLGPipeline and "
                            "ErnieViLG2Pipeline are served"));
  }
  if (!index.status().ok()) return index.status();
  if (auto status = ReadReranker(folder, index, &spec->picture); !status.ok()) return status;
  return by_tokens ? ReadErnieVilg(folder, spec) : ReadStableDiffusion(folder, spec);
}

// Some sign that a folder was meant as a checkpoint.
bool LooksLikeCheckpoint(const fs::path& folder) {
  for (const char* part :
       {"transformer", "unet", "vae", "vqvae", "text_encoder", "scheduler", "vocab.json",
        "vocab.txt", "tokenizer.json", "pytorch_model.bin", "model.safetensors"}) {
    std::error_code error;
    if (fs::exists(folder / part, error)) return true;
  }
  return false;
}

bool IsModelFolder(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "model_index.json", error) ||
         fs::exists(folder / "config.json", error);
}

ModelSpec ReadModel(const fs::path& folder, const std::string& name) {
  ModelSpec spec;
  spec.name = name;
  spec.path = folder.string();
  std::error_code error;
  if (fs::exists(folder / "model_index.json", error)) {
    spec.status = ReadPictureModel(folder, &spec);
  } else if (fs::exists(folder / "config.json", error)) {
    spec.status = ReadTextModel(folder, &spec);
  } else {
    spec.status = absl::InvalidArgumentError("model_index.json and config.json are missing");
  }
  return spec;
}

// The number that a version's folder is named by; 0 for any other name.
uint32_t VersionOf(const fs::path& folder) {
  const std::string name = folder.filename().string();
  uint32_t version = 0;
  if (name.size() > 9 || name[0] == '0' ||
      !std::all_of(name.begin(), name.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(name, &version)) {
    return 0;
  }
  return version;
}

// The model's versions by number; none where the folder is no model.
std::vector<ModelSpec> ReadModels(const fs::path& folder, const std::string& name) {
  std::vector<ModelSpec> models;
  if (IsModelFolder(folder) || LooksLikeCheckpoint(folder)) {
    models.push_back(ReadModel(folder, name));
    return models;
  }
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const uint32_t version = VersionOf(it->path());
    std::error_code ignored;
    if (version == 0 || !it->is_directory(ignored)) continue;
    models.push_back(ReadModel(it->path(), name));
    models.back().version = version;
  }
  std::sort(models.begin(), models.end(),
            [](const ModelSpec& a, const ModelSpec& b) { return a.version < b.version; });
  return models;
}

absl::StatusOr<RepositoryScan> ScanFolder(const std::string& folder) {
  RepositoryScan scan;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (!it->is_directory(ignored) || name[0] == '.') continue;
    std::vector<ModelSpec> models = ReadModels(it->path(), name);
    if (models.empty()) {
      scan.skipped.push_back(absl::StrCat(name, ": model_index.json and config.json are missing"));
    } else if (!IsModelName(name)) {
      scan.skipped.push_back(
          absl::StrCat(name, ": a model's name must be 1 to 128 of [A-Za-z0-9._-]"));
    } else {
      std::move(models.begin(), models.end(), std::back_inserter(scan.models));
    }
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("model repository ", folder, ": ", error.message()));
  }
  std::sort(scan.models.begin(), scan.models.end(), [](const ModelSpec& a, const ModelSpec& b) {
    return std::tie(a.name, a.version) < std::tie(b.name, b.version);
  });
  std::sort(scan.skipped.begin(), scan.skipped.end());
  for (size_t i = 0; i < scan.models.size(); ++i) scan.models[i].id = static_cast<ModelId>(i);
  return scan;
}

}  // namespace

const std::vector<std::string>& SamplerNames() {
  static const auto& names =
      *new std::vector<std::string>{"ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc"};
  return names;
}

bool IsModelName(absl::string_view name) {
  if (name.empty() || name.size() > 128 || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
}

absl::StatusOr<RepositoryScan> ScanRepository(const std::string& folder) {
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error || !fs::is_directory(root, error)) {
    return absl::NotFoundError(absl::StrCat("model repository ", folder, ": is not a folder"));
  }
  if (!IsModelFolder(root)) return ScanFolder(root.string());
  const std::string name = root.filename().string();
  if (!IsModelName(name)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model ", root.string(), ": the folder's name must be 1 to 128 of [A-Za-z0-9._-]"));
  }
  RepositoryScan scan;
  scan.models.push_back(ReadModel(root, name));
  return scan;
}

absl::StatusOr<std::vector<ModelSpec>> ReadVersions(const std::string& folder,
                                                    const std::string& name) {
  if (!IsModelName(name)) {
    return absl::InvalidArgumentError("name: must be 1 to 128 of [A-Za-z0-9._-]");
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  std::vector<ModelSpec> models;
  if (!error && IsModelFolder(root)) {
    if (root.filename() == name) models.push_back(ReadModel(root, name));
  } else if (!error && fs::is_directory(root / name, error)) {
    models = ReadModels(root / name, name);
  }
  if (models.empty()) {
    return absl::NotFoundError(absl::StrCat("name: the repository has no model \"", name, "\""));
  }
  return models;
}

}  // namespace hanmo
