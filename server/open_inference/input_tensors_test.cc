#include "server/open_inference/input_tensors.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/open_inference/testing/infer_protos.h"

namespace hanmo {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Proto;

// A request with one tensor "x", raw.
ModelInferRequest Raw(const std::string& datatype, std::vector<int64_t> shape,
                      const std::string& bytes) {
  ModelInferRequest proto;
  auto* input = proto.add_inputs();
  input->set_name("x");
  input->set_datatype(datatype);
  input->mutable_shape()->Add(shape.begin(), shape.end());
  proto.add_raw_input_contents(bytes);
  return proto;
}

std::string Bytes(std::initializer_list<int> bytes) { return {bytes.begin(), bytes.end()}; }

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  return std::string(result.status().message());
}

// The one tensor of a request, which outlives it.
InputTensor Only(const ModelInferRequest& proto) {
  auto tensors = ReadTensors(proto);
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->size(), 1u);
  return tensors->front();
}

TEST(InputTensorsTest, IntegersOfEveryWidthAreRead) {
  const struct {
    const char* datatype;
    std::string minus_one_or_max;
    absl::int128 value;
  } cases[] = {
      {"INT8", std::string(1, '\xff'), -1},
      {"INT16", std::string(2, '\xff'), -1},
      {"INT32", std::string(4, '\xff'), -1},
      {"INT64", std::string(8, '\xff'), -1},
      {"UINT8", std::string(1, '\xff'), 255},
      {"UINT16", std::string(2, '\xff'), 65535},
      {"UINT32", std::string(4, '\xff'), std::numeric_limits<uint32_t>::max()},
      {"UINT64", std::string(8, '\xff'), std::numeric_limits<uint64_t>::max()},
  };
  for (const auto& one : cases) {
    const auto proto = Raw(one.datatype, {1}, one.minus_one_or_max);
    const auto values = Only(proto).Integers();
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_THAT(*values, ElementsAre(one.value)) << one.datatype;
  }
}

TEST(InputTensorsTest, ContentsAreReadFromTheFieldOfTheirDatatype) {
  const auto ints = Proto(R"(inputs { name: "x" datatype: "INT32" shape: 2
                                      contents { int_contents: 3 int_contents: -4 } })");
  EXPECT_THAT(*Only(ints).Integers(), ElementsAre(3, -4));
  const auto floats = Proto(R"(inputs { name: "x" datatype: "FP64" shape: 1
                                        contents { fp64_contents: 0.5 } })");
  EXPECT_THAT(*Only(floats).Floats(), ElementsAre(0.5));
  const auto bools = Proto(R"(inputs { name: "x" datatype: "BOOL" shape: 2
                                       contents { bool_contents: true bool_contents: false } })");
  EXPECT_THAT(*Only(bools).Booleans(), ElementsAre(true, false));
  const auto texts = Proto(R"(inputs { name: "x" datatype: "BYTES" shape: [2, 1]
                                       contents { bytes_contents: "山" bytes_contents: "" } })");
  EXPECT_THAT(*Only(texts).Texts(), ElementsAre("山", ""));
}

TEST(InputTensorsTest, RawNumbersAreLittleEndianAndAnyByteIsABoolean) {
  const auto ints = Raw("UINT16", {2}, Bytes({1, 2, 3, 4}));
  EXPECT_THAT(*Only(ints).Integers(), ElementsAre(0x0201, 0x0403));
  const auto floats = Raw("FP32", {1}, Bytes({0, 0, 0, 0x3f}));
  EXPECT_THAT(*Only(floats).Floats(), ElementsAre(0.5));
  const auto bools = Raw("BOOL", {3}, Bytes({0, 1, 0x7f}));
  EXPECT_THAT(*Only(bools).Booleans(), ElementsAre(false, true, true));
}

TEST(InputTensorsTest, RawTextsAreFramedByTheirLengths) {
  const auto proto = Raw("BYTES", {3}, Bytes({2, 0, 0, 0, 'a', 'b', 0, 0, 0, 0, 1, 0, 0, 0, 'c'}));
  EXPECT_THAT(*Only(proto).Texts(), ElementsAre("ab", "", "c"));
  const auto none = Raw("BYTES", {0}, "");
  EXPECT_THAT(*Only(none).Texts(), IsEmpty());
}

TEST(InputTensorsTest, BrokenFramesAreRefused) {
  const struct {
    std::string bytes;
    const char* error;
  } cases[] = {
      {Bytes({1, 0, 0}), "x: element 0 must begin with its length in 4 bytes, got 3"},
      {Bytes({9, 0, 0, 0, 'a'}), "x: element 0 must have the 9 bytes that its length says, got 1"},
      {std::string(4, '\xff'), "x: element 0 must have the 4294967295 bytes"},
      {Bytes({1, 0, 0, 0, 'a'}) + Bytes({0, 0}), "x: element 1 must begin with its length"},
      {"", "x: shape [1] needs 1 elements of BYTES, got 0"},
      {Bytes({0, 0, 0, 0, 0, 0, 0, 0}), "x: shape [1] needs 1 elements of BYTES, got 2"},
      {Bytes({2, 0, 0, 0, 0xff, 0xfe}), "x: element 0 must be valid UTF-8"},
  };
  for (const auto& one : cases) {
    const auto proto = Raw("BYTES", {1}, one.bytes);
    EXPECT_THAT(ErrorOf(Only(proto).Texts()), HasSubstr(one.error));
  }
}

TEST(InputTensorsTest, LengthsThatDoNotFitTheShapeAreRefused) {
  const auto shorter = Raw("INT64", {2}, std::string(15, '\0'));
  EXPECT_EQ(ErrorOf(Only(shorter).Integers()), "x: shape [2] needs 16 bytes of INT64, got 15");
  const auto longer = Raw("FP32", {1}, std::string(8, '\0'));
  EXPECT_EQ(ErrorOf(Only(longer).Floats()), "x: shape [1] needs 4 bytes of FP32, got 8");
  const auto large = Raw("UINT32", {1 << 10, 1 << 10}, "");
  EXPECT_THAT(ErrorOf(Only(large).Integers()), HasSubstr("needs 4194304 bytes"));
  const auto contents = Proto(R"(inputs { name: "x" datatype: "INT32" shape: 2
                                          contents { int_contents: 3 } })");
  EXPECT_EQ(ErrorOf(Only(contents).Integers()), "x: shape [2] needs 2 elements of INT32, got 1");
  const auto elsewhere = Proto(R"(inputs { name: "x" datatype: "INT32" shape: 1
                                           contents { int64_contents: 3 } })");
  EXPECT_EQ(ErrorOf(Only(elsewhere).Integers()), "x: shape [1] needs 1 elements of INT32, got 0");
}

TEST(InputTensorsTest, ValuesMustFitTheirDatatype) {
  const auto proto = Proto(R"(inputs { name: "x" datatype: "INT8" shape: 1
                                       contents { int_contents: 300 } })");
  EXPECT_EQ(ErrorOf(Only(proto).Integers()), "x: must fit INT8, got 300");
}

TEST(InputTensorsTest, DatatypesAreThoseAskedFor) {
  for (const char* datatype : {"FP16", "BF16", "BYTES", "int32", "", "\x01"}) {
    const auto proto = Raw(datatype, {1}, "ab");
    EXPECT_THAT(ErrorOf(Only(proto).Integers()), HasSubstr("x: datatype must be an integer one"));
    EXPECT_EQ(ErrorOf(Only(proto).Floats()), "x: datatype must be FP32 or FP64");
    EXPECT_EQ(ErrorOf(Only(proto).Booleans()), "x: datatype must be BOOL");
  }
  const auto number = Raw("INT8", {2}, "ab");
  EXPECT_EQ(ErrorOf(Only(number).Texts()), "x: datatype must be BYTES");
}

TEST(InputTensorsTest, ShapesMustBePossible) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  for (const auto& shape : std::vector<std::vector<int64_t>>{{-1},
                                                             {huge},
                                                             {huge, huge},
                                                             {1 << 16, 1 << 16},
                                                             {0, huge},
                                                             {std::numeric_limits<int64_t>::min()},
                                                             std::vector<int64_t>(9, 1)}) {
    EXPECT_THAT(ErrorOf(ReadTensors(Raw("INT8", shape, "a"))),
                HasSubstr("x: shape must have at most 8 dimensions of 0 or more"));
  }
  const auto scalar = Raw("INT8", {}, "a");
  EXPECT_THAT(*Only(scalar).Integers(), ElementsAre('a'));
}

TEST(InputTensorsTest, NamesAndContentsAreOneToOne) {
  EXPECT_EQ(ErrorOf(ReadTensors(Proto(R"(inputs { name: "x" } inputs { name: "x" })"))),
            "x: must be given once");
  EXPECT_EQ(ErrorOf(ReadTensors(Proto("inputs {}"))),
            "inputs[0].name: must be 1 to 64 bytes, got 0");
  EXPECT_EQ(ErrorOf(ReadTensors(Proto(R"(inputs { name: "x" } raw_input_contents: ""
                                         raw_input_contents: "")"))),
            "raw_input_contents: must have one entry for each of the 1 inputs, got 2");
  EXPECT_EQ(ErrorOf(ReadTensors(Proto(R"(raw_input_contents: "a")"))),
            "raw_input_contents: must have one entry for each of the 0 inputs, got 1");
  EXPECT_EQ(ErrorOf(ReadTensors(Proto(R"(
                inputs { name: "x" datatype: "INT8" shape: 1 contents { int_contents: 1 } }
                raw_input_contents: "a")"))),
            "x: contents must be absent where there are raw_input_contents");
  ModelInferRequest many;
  for (int i = 0; i < 65; ++i) many.add_inputs()->set_name(std::to_string(i));
  EXPECT_EQ(ErrorOf(ReadTensors(many)), "inputs: must be at most 64 tensors, got 65");
}

}  // namespace
}  // namespace hanmo
