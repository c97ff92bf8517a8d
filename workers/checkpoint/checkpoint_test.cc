#include "workers/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/testing/archive_writer.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SafetensorsOf;

// A fresh folder for one test.
class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest()
      : folder_(fs::path(::testing::TempDir()) /
                ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CheckpointTest() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  // A safetensors file with one float32 vector per name, holding 1, 2, 3 ….
  void WriteVectors(const std::string& file, const std::vector<std::string>& names,
                    int64_t size = 4) const {
    std::string header = "{", data;
    for (const std::string& name : names) {
      absl::StrAppend(&header, header.size() > 1 ? "," : "", "\"", name,
                      R"(":{"dtype":"F32","shape":[)", size, R"(],"data_offsets":[)", data.size(),
                      ",", data.size() + size * 4, "]}");
      for (int64_t i = 1; i <= size; ++i) {
        const float value = static_cast<float>(i);
        data.append(reinterpret_cast<const char*>(&value), 4);
      }
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    Write(file, SafetensorsOf(header, data));
  }
  absl::StatusOr<Checkpoint> Open(CheckpointOptions options = {}) const {
    return Checkpoint::Open(folder_.string(), std::move(options));
  }
  void ExpectError(absl::StatusCode code, const std::string& message) const {
    const auto checkpoint = Open();
    EXPECT_EQ(checkpoint.status().code(), code);
    EXPECT_THAT(checkpoint.status().message(), HasSubstr(message));
  }

  const fs::path folder_;
};

TEST_F(CheckpointTest, GivesTheMappedFileItselfWhenTheTypeIsTheSame) {
  WriteVectors("model.safetensors", {"w"});
  at::Tensor first, second;
  {
    Checkpoint checkpoint = *Open();
    first = *checkpoint.Take("w", {4});
    second = *checkpoint.Take("w", {4});
  }
  EXPECT_EQ(first.data_ptr(), second.data_ptr());  // and it outlives the checkpoint
  EXPECT_TRUE(at::equal(first, at::arange(1, 5).to(at::kFloat)));
}

TEST_F(CheckpointTest, ConvertsAsTorchDoes) {
  constexpr int64_t kSize = (1 << 20) + 77;  // more than one chunk
  WriteVectors("model.safetensors", {"w"}, kSize);
  const at::Tensor exact = at::arange(1, kSize + 1).to(at::kFloat);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    Checkpoint checkpoint = *Open({.dtype = dtype});
    const at::Tensor taken = *checkpoint.Take("w", {kSize});
    EXPECT_EQ(taken.scalar_type(), dtype);
    EXPECT_TRUE(at::equal(taken, exact.to(dtype)));
  }
}

int64_t StatusKib(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1));
  }
  return -1;
}

TEST_F(CheckpointTest, HoldsConvertedWeightsOnceAndGivesTheFileBack) {
  constexpr int64_t kSize = 16 << 20;  // 64 MiB of float32
  WriteVectors("model.safetensors", {"w"}, kSize);
  Checkpoint checkpoint = *Open({.dtype = at::kBFloat16});
  const int64_t anonymous = StatusKib("RssAnon"), mapped = StatusKib("RssFile");
  const at::Tensor taken = *checkpoint.Take("w", {kSize});
  ASSERT_EQ(taken[kSize - 1].item<float>(), static_cast<float>(kSize));
  EXPECT_LE(StatusKib("RssAnon") - anonymous, (32 << 10) * 115 / 100);
  EXPECT_LE(StatusKib("RssFile") - mapped, 8 << 10);
}

TEST_F(CheckpointTest, ReadsStridedTensorsOfTorchArchives) {
  const std::string tensor = testing::PickleTensor({.storage_class = "ShortStorage",
                                                    .elements = 7,
                                                    .first = 1,
                                                    .shape = {2, 3},
                                                    .strides = {1, 2}});
  const int16_t values[] = {0, 1, 2, 3, 4, 5, 6};
  Write("pytorch_model.bin",
        testing::TorchArchiveOf(testing::WholePickle(testing::PickleDict({{"w", tensor}})),
                                {{"0", std::string(reinterpret_cast<const char*>(values), 14)}}));
  Checkpoint checkpoint = *Open();
  const at::Tensor taken = *checkpoint.TakeAs("w", {2, 3}, at::kShort);
  EXPECT_TRUE(at::equal(taken, at::arange(1, 7).view({3, 2}).t().to(at::kShort)));
  EXPECT_FALSE(checkpoint.Take("w", {2, 3}).ok());  // integers are not weights
}

TEST_F(CheckpointTest, ErrorsNameTensorShapesAndFile) {
  WriteVectors("model.safetensors", {"block.w"});
  Checkpoint checkpoint = *Open();
  EXPECT_THAT(checkpoint.Take("block.w", {5}).status().message(),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("block.w"), HasSubstr("[4]"),
                    HasSubstr("[5]")));
  EXPECT_THAT(checkpoint.TakeAs("block.w", {4}, at::kLong).status().message(),
              AllOf(HasSubstr("block.w"), HasSubstr("float32"), HasSubstr("Long")));
  const auto missing = checkpoint.Take("block.v", {4, 2});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), AllOf(HasSubstr("block.v"), HasSubstr("[4, 2]")));
}

TEST_F(CheckpointTest, ScopesRememberTheFirstError) {
  WriteVectors("model.safetensors", {"a.0.w"});
  Checkpoint checkpoint = *Open();
  const WeightScope weights(checkpoint);
  EXPECT_EQ(weights.Sub("a", 0).Take("w", {4})[3].item<float>(), 4);
  EXPECT_TRUE(weights.status().ok());
  const at::Tensor zeros = weights.Sub("a").Sub("1").Take("w", {2, 2});
  EXPECT_THAT(zeros.sizes(), ElementsAre(2, 2));
  static_cast<void>(weights.Take("other", {1}));
  EXPECT_THAT(weights.status().message(), HasSubstr("a.1.w"));
}

TEST_F(CheckpointTest, UnusedLeavesOutBuffersWithoutWeight) {
  WriteVectors("model.safetensors",
               {"w", "left", "h.0.attn.bias", "h.0.attn.masked_bias", "embeddings.position_ids",
                "norm.num_batches_tracked", "attn_bias"});
  Checkpoint checkpoint = *Open();
  ASSERT_TRUE(checkpoint.Take("w", {4}).ok());
  EXPECT_THAT(checkpoint.Unused(), ElementsAre("attn_bias", "left"));
}

TEST_F(CheckpointTest, RenamesAndDrops) {
  WriteVectors("model.safetensors", {"old.w", "gone"});
  Checkpoint checkpoint = *Open();
  ASSERT_TRUE(checkpoint
                  .Rename([](absl::string_view name) {
                    return name == "gone" ? std::string() : std::string(name.substr(4));
                  })
                  .ok());
  EXPECT_TRUE(checkpoint.Has("w"));
  EXPECT_THAT(checkpoint.Unused(), ElementsAre("w"));
  WriteVectors("model.safetensors", {"a", "b"});
  Checkpoint clash = *Open();
  EXPECT_THAT(clash.Rename([](absl::string_view) { return std::string("c"); }).message(),
              HasSubstr("both mean c"));
}

TEST_F(CheckpointTest, ReadsShardsAsTheIndexPlacesThem) {
  WriteVectors("model-1.safetensors", {"a", "copy"});
  WriteVectors("model-2.safetensors", {"b", "copy"});
  Write("model.safetensors.index.json",
        R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors",
            "copy": "model-2.safetensors"}})");
  Checkpoint checkpoint = *Open();
  for (const char* name : {"a", "b", "copy"}) EXPECT_TRUE(checkpoint.Take(name, {4}).ok());
}

TEST_F(CheckpointTest, SaysWhatIsWrongWithAnIndex) {
  WriteVectors("model-1.safetensors", {"a"});
  const auto with_index = [&](const std::string& text, absl::StatusCode code,
                              const std::string& message) {
    Write("model.safetensors.index.json", text);
    ExpectError(code, message);
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  with_index(R"({"weight_map": {"a": "model-2.safetensors"}})", absl::StatusCode::kNotFound,
             "model-2.safetensors");
  with_index(R"({"weight_map": {"b": "model-1.safetensors"}})", invalid, "tensor b is missing");
  with_index(R"({"weight_map": {"a": "../model-1.safetensors"}})", invalid, "shard of a");
  with_index(R"({"weight_map": {"a": "/etc/passwd"}})", invalid, "shard of a");
  with_index(R"({"weight_map": {"a": ".."}})", invalid, "shard of a");
  with_index(R"({"weight_map": {"a": 1}})", invalid, "shard of a");
  with_index(R"({"weight_map": []})", invalid, "weight_map");
  with_index("{", invalid, "not a JSON object");
}

TEST_F(CheckpointTest, PrefersSafetensorsAndTheVariant) {
  Write("pytorch_model.bin", "torn");
  ExpectError(absl::StatusCode::kInvalidArgument, "pytorch_model.bin");
  WriteVectors("model.safetensors", {"plain"});
  WriteVectors("model.fp16.safetensors", {"variant"});
  EXPECT_TRUE(Open()->Has("plain"));
  EXPECT_TRUE(Open({.variant = "fp16"})->Has("variant"));
  EXPECT_TRUE(Open({.variant = "other"})->Has("plain"));
}

TEST_F(CheckpointTest, ReadsTheConfig) {
  WriteVectors("model.safetensors", {"w"});
  EXPECT_TRUE(Open()->config().empty());
  Write("config.json", R"({"hidden_size": 8})");
  EXPECT_EQ(Open()->config().at("hidden_size"), 8);
  Write("config.json", R"({"hidden_size": )");
  ExpectError(absl::StatusCode::kInvalidArgument, "config.json");
}

TEST_F(CheckpointTest, SaysWhenThereIsNothing) {
  ExpectError(absl::StatusCode::kNotFound, "no weights");
  EXPECT_EQ(Checkpoint::Open((folder_ / "none").string()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace hanmo
