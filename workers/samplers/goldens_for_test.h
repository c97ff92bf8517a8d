// Reads the goldens of tests/goldens/samplers for the tests of this folder.
#pragma once

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace hanmo::testing {

inline std::string ReadGolden(const std::string& name) {
  std::ifstream file("tests/goldens/samplers/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The float32 numbers of a .bin golden, taken in the order of the cases.
class GoldenNumbers {
 public:
  explicit GoldenNumbers(const std::string& name) : bytes_(ReadGolden(name)) {}

  std::vector<float> Take(size_t count) {
    std::vector<float> values(count);
    bytes_.copy(reinterpret_cast<char*>(values.data()), count * sizeof(float), position_);
    position_ += count * sizeof(float);
    return values;
  }
  // Whether exactly all numbers were taken.
  bool exhausted() const { return position_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t position_ = 0;
};

}  // namespace hanmo::testing
