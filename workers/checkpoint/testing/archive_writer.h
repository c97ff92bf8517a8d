// Builds small checkpoint files in memory, whole or deliberately wrong, for tests.
#ifndef HANMO_WORKERS_CHECKPOINT_TESTING_ARCHIVE_WRITER_H_
#define HANMO_WORKERS_CHECKPOINT_TESTING_ARCHIVE_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hanmo::testing {

// A zip file with stored entries (name, content), in order. `method` is the compression method that
// the directory claims.
std::string ZipOf(const std::vector<std::pair<std::string, std::string>>& entries,
                  uint16_t method = 0);

// A safetensors file: 8 bytes of length, the JSON header, the data.
std::string SafetensorsOf(const std::string& header, const std::string& data);

// Pickle fragments, protocol 2.
std::string PickleText(const std::string& text);
std::string PickleInt(int32_t value);
std::string PickleTuple(const std::vector<int32_t>& values);
// torch._utils._rebuild_tensor_v2 of storage `key` of `elements` elements of `storage_class`.
struct PickledTensor {
  std::string storage_class = "FloatStorage";
  std::string key = "0";
  int32_t elements = 0;
  int32_t first = 0;
  std::vector<int32_t> shape;
  std::vector<int32_t> strides;
};
std::string PickleTensor(const PickledTensor& tensor);
// A dict with these (key, pickled value) items; with `stop` the whole pickle.
std::string PickleDict(const std::vector<std::pair<std::string, std::string>>& items);
std::string WholePickle(const std::string& value);

// What torch.save writes: data.pkl and storages (key, bytes).
std::string TorchArchiveOf(const std::string& pickle,
                           const std::vector<std::pair<std::string, std::string>>& storages);

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_CHECKPOINT_TESTING_ARCHIVE_WRITER_H_
