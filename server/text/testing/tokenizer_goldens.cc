#include "server/text/testing/tokenizer_goldens.h"

#include <zlib.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "server/text/folder_file.h"

namespace hanmo::testing {
namespace {

constexpr char kFolder[] = "tests/goldens/tokenizers";

std::string Unzip(const std::string& path) {
  std::string content;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return content;
  char buffer[1 << 16];
  for (int size; (size = gzread(file, buffer, sizeof(buffer))) > 0;) content.append(buffer, size);
  gzclose(file);
  return content;
}

}  // namespace

const nlohmann::json& TokenizerGoldens() {
  static const nlohmann::json& goldens =
      *new nlohmann::json(nlohmann::json::parse(Unzip(std::string(kFolder) + "/cases.json.gz")));
  return goldens;
}

std::unique_ptr<const Tokenizer> LoadVariant(const nlohmann::json& variant) {
  const auto folder =
      std::filesystem::path(kFolder) / "folders" / variant["folder"].get<std::string>();
  const nlohmann::json& replaced = variant["replaced"];
  const auto read = [&](const char* name) -> std::optional<std::string> {
    const auto found = replaced.find(name);
    if (found == replaced.end()) return ReadFolderFile(folder, name).value();
    return found->is_null() ? std::nullopt : std::optional<std::string>(found->get<std::string>());
  };
  const TokenizerFiles files = {
      .tokenizer_json = read("tokenizer.json"),
      .vocab_txt = read("vocab.txt"),
      .vocab_json = read("vocab.json"),
      .merges_txt = read("merges.txt"),
      .tokenizer_config = read("tokenizer_config.json"),
      .special_tokens_map = read("special_tokens_map.json"),
      .added_tokens = read("added_tokens.json"),
  };
  return Tokenizer::FromFiles(files).value();
}

void BlockHash::MixWord(uint32_t word) {
  for (int shift = 0; shift < 32; shift += 8) Mix(static_cast<uint8_t>(word >> shift));
}

void BlockHash::Add(const std::vector<uint32_t>& ids) {
  MixWord(static_cast<uint32_t>(ids.size()));
  for (const uint32_t id : ids) MixWord(id);
}

void BlockHash::Add(const std::string& text) {
  for (const char byte : text) Mix(static_cast<uint8_t>(byte));
  Mix(0);
}

uint32_t BlockHash::Take() { return std::exchange(value_, 0x811C9DC5u); }

}  // namespace hanmo::testing
