// Reads tests/goldens/tokenizers: strings and what transformers made of them. For tests, which run
// in the root of the source tree; a missing or broken golden ends the test program.
#ifndef HANMO_SERVER_TEXT_TESTING_TOKENIZER_GOLDENS_H_
#define HANMO_SERVER_TEXT_TESTING_TOKENIZER_GOLDENS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/text/tokenizer.h"

namespace hanmo::testing {

// The whole of cases.json.gz, read once.
const nlohmann::json& TokenizerGoldens();

// The tokenizer of a variant: the files of its folder, some replaced or removed.
std::unique_ptr<const Tokenizer> LoadVariant(const nlohmann::json& variant);

// The hash that generate.py records of each block of rows.
class BlockHash {
 public:
  void Add(const std::vector<uint32_t>& ids);
  void Add(const std::string& text);
  uint32_t Take();  // and start again

 private:
  void Mix(uint8_t byte) { value_ = (value_ ^ byte) * 0x01000193u; }
  void MixWord(uint32_t word);

  uint32_t value_ = 0x811C9DC5u;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_TEXT_TESTING_TOKENIZER_GOLDENS_H_
