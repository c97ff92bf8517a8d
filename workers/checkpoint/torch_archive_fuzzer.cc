#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "workers/checkpoint/pickle.h"
#include "workers/checkpoint/tensor_file.h"

// The last byte chooses the door: the whole archive, or the pickle machine alone, whose inputs
// would hardly ever get past the zip directory.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0 && data[size - 1] == 'p') {
    static_cast<void>(hanmo::ReadPickle({data, size - 1}));
    return 0;
  }
  const auto tensors = hanmo::ParseTorchArchive({data, size});
  if (!tensors.ok()) return 0;
  for (const hanmo::TensorEntry& tensor : *tensors) {
    if (tensor.elements() == 0) continue;
    uint64_t last = 0;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      last += static_cast<uint64_t>(tensor.shape[i] - 1) * static_cast<uint64_t>(tensor.strides[i]);
    }
    const uint64_t end = tensor.offset + (last + 1) * hanmo::ElementSize(tensor.type);
    if (end > size) std::abort();
  }
  return 0;
}
