#include "workers/checkpoint/testing/archive_writer.h"

namespace hanmo::testing {
namespace {

template <class T>
std::string Bytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::string Bytes16(uint64_t value) { return Bytes(static_cast<uint16_t>(value)); }
std::string Bytes32(uint64_t value) { return Bytes(static_cast<uint32_t>(value)); }

}  // namespace

std::string ZipOf(const std::vector<std::pair<std::string, std::string>>& entries,
                  uint16_t method) {
  std::string file, directory;
  for (const auto& [name, content] : entries) {
    const std::string sizes = Bytes32(content.size()) + Bytes32(content.size());
    const std::string common = Bytes16(20) + Bytes16(0) + Bytes16(method) + Bytes32(0) +
                               Bytes32(0) + sizes + Bytes16(name.size()) + Bytes16(0);
    directory += Bytes32(0x02014b50) + Bytes16(20) + common + Bytes16(0) + Bytes16(0) + Bytes16(0) +
                 Bytes32(0) + Bytes32(file.size()) + name;
    file += Bytes32(0x04034b50) + common + name + content;
  }
  const std::string end = Bytes32(0x06054b50) + Bytes16(0) + Bytes16(0) + Bytes16(entries.size()) +
                          Bytes16(entries.size()) + Bytes32(directory.size()) +
                          Bytes32(file.size()) + Bytes16(0);
  return file + directory + end;
}

std::string SafetensorsOf(const std::string& header, const std::string& data) {
  return Bytes(static_cast<uint64_t>(header.size())) + header + data;
}

std::string PickleText(const std::string& text) { return "X" + Bytes32(text.size()) + text; }

std::string PickleInt(int32_t value) { return "J" + Bytes(value); }

std::string PickleTuple(const std::vector<int32_t>& values) {
  std::string tuple = "(";
  for (const int32_t value : values) tuple += PickleInt(value);
  return tuple + "t";
}

std::string PickleTensor(const PickledTensor& tensor) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + PickleText("storage") + "ctorch\n" +
         tensor.storage_class + "\n" + PickleText(tensor.key) + PickleText("cpu") +
         PickleInt(tensor.elements) + "tQ" + PickleInt(tensor.first) + PickleTuple(tensor.shape) +
         PickleTuple(tensor.strides) + "\x89" + "ccollections\nOrderedDict\n)RtR";
}

std::string PickleDict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string dict = "}(";
  for (const auto& [key, value] : items) dict += PickleText(key) + value;
  return dict + "u";
}

std::string WholePickle(const std::string& value) { return "\x80\x02" + value + "."; }

std::string TorchArchiveOf(const std::string& pickle,
                           const std::vector<std::pair<std::string, std::string>>& storages) {
  std::vector<std::pair<std::string, std::string>> entries = {{"archive/data.pkl", pickle}};
  for (const auto& [key, bytes] : storages) entries.emplace_back("archive/data/" + key, bytes);
  return ZipOf(entries);
}

}  // namespace hanmo::testing
