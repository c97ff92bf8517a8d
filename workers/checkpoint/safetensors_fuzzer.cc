#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "workers/checkpoint/tensor_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tensors = hanmo::ParseSafetensors({data, size});
  if (!tensors.ok()) return 0;
  for (const hanmo::TensorEntry& tensor : *tensors) {
    const uint64_t bytes =
        static_cast<uint64_t>(tensor.elements()) * hanmo::ElementSize(tensor.type);
    if (tensor.offset > size || bytes > size - tensor.offset) std::abort();
  }
  return 0;
}
