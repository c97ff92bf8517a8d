// What the tests of the text kernels share: every instruction set with every type, and inputs.
#ifndef HANMO_WORKERS_KERNELS_TESTING_TEXT_KERNEL_TEST_H_
#define HANMO_WORKERS_KERNELS_TESTING_TEXT_KERNEL_TEST_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "workers/kernels/text_kernels.h"

namespace hanmo {

using Case = std::tuple<CpuIsa, WeightType>;

class TextKernelTest : public ::testing::TestWithParam<Case> {
 protected:
  CpuIsa isa() const { return std::get<0>(GetParam()); }
  WeightType type() const { return std::get<1>(GetParam()); }
  bool bf16() const { return ActivationsAreBf16(isa(), type()); }
  const TextKernels& kernels() const { return TextKernelsFor(isa()); }
};

inline std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const CpuIsa isa : SupportedIsas()) {
    for (const WeightType type :
         {WeightType::kFloat32, WeightType::kFloat16, WeightType::kBFloat16}) {
      cases.push_back({isa, type});
    }
  }
  return cases;
}

inline std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  constexpr const char* kTypes[] = {"Float32", "Float16", "BFloat16"};
  const auto& [isa, type] = info.param;
  return std::string(IsaName(isa)) + kTypes[static_cast<int>(type)];
}

// Activations of a type, [rows, stride], with zeros behind the columns.
struct Rows {
  Rows(bool bf16, int64_t rows, int64_t columns, uint32_t seed)
      : stride(PaddedColumns(columns)), floats(rows * stride), halves(rows * stride) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        float value = normal(random);
        if (bf16) value = FromBf16(ToBf16(value));
        floats[r * stride + c] = value;
        halves[r * stride + c] = ToBf16(value);
      }
    }
    data = bf16 ? static_cast<const void*>(halves.data()) : floats.data();
  }
  int64_t stride;
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  const void* data;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TESTING_TEXT_KERNEL_TEST_H_
