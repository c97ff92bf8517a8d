#include "workers/checkpoint/tensor_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/testing/archive_writer.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::PickleDict;
using testing::PickleInt;
using testing::PickleTensor;
using testing::PickleText;
using testing::SafetensorsOf;
using testing::TorchArchiveOf;
using testing::WholePickle;
using testing::ZipOf;

absl::Span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void ExpectInvalid(const absl::StatusOr<std::vector<TensorEntry>>& tensors,
                   const std::string& message) {
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(tensors.status().message(), HasSubstr(message));
}

TEST(ParseSafetensorsTest, FindsTensors) {
  const std::string file = SafetensorsOf(
      R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"__metadata__":{"format":"pt"}})",
      std::string(26, 'x'));
  const auto tensors = ParseSafetensors(BytesOf(file));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  const TensorEntry& a = tensors->at(0);
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type, ElementType::kFloat32);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_THAT(a.strides, ElementsAre(3, 1));
  EXPECT_EQ(a.offset, file.size() - 26);
  EXPECT_EQ(tensors->at(1).offset, file.size() - 2);
  EXPECT_EQ(tensors->at(1).elements(), 1);
}

TEST(ParseSafetensorsTest, RejectsEveryTornFile) {
  const std::string file = ReadWhole("tests/goldens/gpt2/untied/model-00002-of-00002.safetensors");
  ASSERT_TRUE(ParseSafetensors(BytesOf(file)).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    ASSERT_EQ(ParseSafetensors(BytesOf(file.substr(0, size))).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size << " of " << file.size() << " bytes";
  }
}

TEST(ParseSafetensorsTest, NamesTheTensorOfAnUnsupportedType) {
  const std::string header = R"({"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})";
  ExpectInvalid(ParseSafetensors(BytesOf(SafetensorsOf(header, "xx"))), "tensor w");
}

TEST(ParseSafetensorsTest, RejectsWhatDoesNotAddUp) {
  for (const char* header : {
           R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
           R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})",
           R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
           R"("v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           "[]",
           "{",
       }) {
    ExpectInvalid(ParseSafetensors(BytesOf(SafetensorsOf(header, "12345678"))), "safetensors");
  }
}

std::string OneTensor(const testing::PickledTensor& tensor, size_t bytes) {
  return TorchArchiveOf(WholePickle(PickleDict({{"w", PickleTensor(tensor)}})),
                        {{"0", std::string(bytes, 'x')}});
}

TEST(ParseTorchArchiveTest, FindsTensorsOfEachStorageClass) {
  const std::pair<const char*, ElementType> classes[] = {
      {"DoubleStorage", ElementType::kFloat64}, {"FloatStorage", ElementType::kFloat32},
      {"HalfStorage", ElementType::kFloat16},   {"BFloat16Storage", ElementType::kBFloat16},
      {"LongStorage", ElementType::kInt64},     {"IntStorage", ElementType::kInt32},
      {"ShortStorage", ElementType::kInt16},    {"CharStorage", ElementType::kInt8},
      {"ByteStorage", ElementType::kUint8},     {"BoolStorage", ElementType::kBool},
  };
  for (const auto& [name, type] : classes) {
    const std::string file = OneTensor(
        {.storage_class = name, .elements = 8, .first = 1, .shape = {2, 3}, .strides = {1, 2}},
        8 * ElementSize(type));
    const auto tensors = ParseTorchArchive(BytesOf(file));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    ASSERT_EQ(tensors->size(), 1u);
    EXPECT_EQ(tensors->at(0).type, type);
    EXPECT_THAT(tensors->at(0).strides, ElementsAre(1, 2));
    EXPECT_FALSE(tensors->at(0).contiguous());
    EXPECT_EQ(tensors->at(0).offset, file.find("xxxx") + ElementSize(type));
  }
}

TEST(ParseTorchArchiveTest, FindsTheStateDictOfATrainingCheckpoint) {
  const std::string tensor = PickleTensor({.elements = 1, .shape = {1}, .strides = {1}});
  const std::string state = PickleDict({{"inner", tensor}});
  const std::string file = TorchArchiveOf(
      WholePickle(PickleDict({{"epoch", PickleInt(3)}, {"outer", tensor}, {"state_dict", state}})),
      {{"0", "1234"}});
  const auto tensors = ParseTorchArchive(BytesOf(file));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 1u);
  EXPECT_EQ(tensors->at(0).name, "inner");
}

TEST(ParseTorchArchiveTest, RefusesWhatWouldRunCodeAndNamesIt) {
  const std::string calls[] = {
      "cos\nsystem\n(" + PickleText("true") + "tR",
      PickleText("os") + PickleText("system") + "\x93(" + PickleText("true") + "tR",
      "cbuiltins\neval\n(" + PickleText("1") + "tR",
  };
  const char* names[] = {"os.system", "os.system", "builtins.eval"};
  for (size_t i = 0; i < 3; ++i) {
    const std::string file = TorchArchiveOf(WholePickle(PickleDict({{"w", calls[i]}})), {});
    ExpectInvalid(ParseTorchArchive(BytesOf(file)), names[i]);
  }
}

TEST(ParseTorchArchiveTest, RejectsTensorsBeyondTheirStorage) {
  const int32_t big = std::numeric_limits<int32_t>::max();
  struct Case {
    testing::PickledTensor tensor;
    const char* message;
  };
  const Case cases[] = {
      {{.elements = 4, .shape = {4}, .strides = {1}}, "8 bytes for 4 elements"},
      {{.elements = 2, .shape = {3}, .strides = {1}}, "beyond its storage"},
      {{.elements = 2, .first = 1, .shape = {2}, .strides = {1}}, "beyond its storage"},
      {{.elements = 2, .shape = {2}, .strides = {2}}, "beyond its storage"},
      {{.elements = 2, .shape = {big, big, big}, .strides = {big, big, big}}, "too large"},
      {{.elements = 2, .shape = {2}, .strides = {-1}}, "no shape"},
      {{.elements = 2, .shape = {-2}, .strides = {1}}, "no shape"},
      {{.elements = 2, .shape = {2}, .strides = {}}, "no shape"},
      {{.elements = -1, .shape = {2}, .strides = {1}}, "no storage"},
      {{.elements = 2, .first = -1, .shape = {2}, .strides = {1}}, "no storage"},
      {{.key = "7", .elements = 2, .shape = {2}, .strides = {1}}, "not in the archive"},
      {{.storage_class = "ComplexStorage", .elements = 2}, "torch.ComplexStorage"},
  };
  for (const Case& c : cases) {
    ExpectInvalid(ParseTorchArchive(BytesOf(OneTensor(c.tensor, 8))), c.message);
  }
}

TEST(ParseTorchArchiveTest, RejectsEveryTornFile) {
  const std::string file = ReadWhole("tests/goldens/gpt2/sharded/pytorch_model-00002-of-00002.bin");
  ASSERT_TRUE(ParseTorchArchive(BytesOf(file)).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    ASSERT_EQ(ParseTorchArchive(BytesOf(file.substr(0, size))).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size << " of " << file.size() << " bytes";
  }
}

TEST(ParseTorchArchiveTest, SurvivesHostilePickles) {
  std::string nested(5000, '(');
  std::string self = "}q\x01" + PickleText("me") + "h\x01s";  // a dict that holds itself
  const std::pair<std::string, const char*> cases[] = {
      {nested, "nested too deeply"},
      {"", "nothing left"},
      {"R", "nothing left"},
      {"u", "no mark"},
      {"}(" + PickleText("key") + "u", "without a value"},
      {"h\x05", "unknown memo"},
      {"X\xff\xff\xff\xff", "text too long"},
      {"\x8a\xff", "torn"},
      {"ctorch\nFloatStorage\n)R", "a storage class"},
      {"ccollections\nOrderedDict", "does not end"},
      {"I1\n", "0x49"},
      {PickleInt(1), "no dict"},
  };
  for (const auto& [body, message] : cases) {
    ExpectInvalid(ParseTorchArchive(BytesOf(TorchArchiveOf(WholePickle(body), {}))), message);
  }
  const auto tensors = ParseTorchArchive(BytesOf(TorchArchiveOf(WholePickle(self), {})));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(*tensors, IsEmpty());
}

TEST(ParseTorchArchiveTest, SaysWhatIsWrongWithTheArchive) {
  ExpectInvalid(ParseTorchArchive(BytesOf(ZipOf({{"archive/other", "x"}}))), "no data.pkl");
  ExpectInvalid(ParseTorchArchive(BytesOf(ZipOf({{"a/data.pkl", "."}, {"b/data.pkl", "."}}))),
                "more than one");
  ExpectInvalid(ParseTorchArchive(BytesOf(ZipOf({{"archive/data.pkl", "."}}, 8))), "compressed");
  ExpectInvalid(
      ParseTorchArchive(BytesOf("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")),
      "before 1.6");
  ExpectInvalid(ParseTorchArchive(BytesOf("not a zip file")), "zip");
}

TEST(OpenTensorFileTest, NamesThePath) {
  const auto missing = OpenTensorFile("tests/goldens/none.safetensors");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("tests/goldens/none.safetensors"));
  const auto folder = OpenTensorFile("tests/goldens");
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kInvalidArgument);
  const auto text = OpenTensorFile("tests/goldens/gpt2/versions.json");
  EXPECT_THAT(text.status().message(), HasSubstr("versions.json: torn or damaged zip"));
}

}  // namespace
}  // namespace hanmo
