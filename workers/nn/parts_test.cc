// Operators that are cut into parts: all of them once, and no cut changes a bit.
#include "workers/nn/parts.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

#include "workers/checkpoint/checkpoint.h"
#include "workers/kernels/yield.h"
#include "workers/models/testing/golden.h"
#include "workers/nn/attention.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/linear.h"
#include "workers/nn/norm.h"
#include "workers/nn/picture_blocks.h"
#include "workers/nn/testing/blocks.h"

namespace hanmo {
namespace {

using testing::ExpectRowsIndependent;
using testing::kTypes;
using testing::OpenFolder;
using testing::RandomWeight;
using testing::RelativeError;
using testing::Types;

// f() with parts that are `divisor` times smaller than usual.
template <typename F>
at::Tensor WithSmallerParts(double divisor, const F& f) {
  const PartSizeScope smaller(divisor);
  return f();
}

TEST(PartsTest, CutEverythingOnceAndYieldAfterEachPart) {
  class Counter final : public YieldListener {
   public:
    bool OnYieldPoint() override {
      ++heard;
      return true;
    }
    int heard = 0;
  } counter;
  const YieldScope scope(&counter);
  for (const auto& [count, size, multiple, parts] : {std::tuple{100, 10, 1, 10},
                                                     {100, 1000, 1, 1},
                                                     {7, 0, 1, 7},
                                                     {100, 30, 64, 2},
                                                     {0, 5, 1, 0}}) {
    counter.heard = 0;
    int64_t next = 0;
    ForEachPart(count, size, multiple, [&](int64_t first, int64_t some) {
      EXPECT_EQ(first, next);
      EXPECT_GT(some, 0);
      next = first + some;
    });
    EXPECT_EQ(next, count);
    EXPECT_EQ(counter.heard, parts);
  }
}

// Layers of the size of Stable Diffusion's, which are cut, and cut finer: the result is that of
// oneDNN's one call.
TEST(PartsTest, NoCutChangesABitOfALinearLayer) {
  at::manual_seed(7);
  for (const Types& types : kTypes) {
    for (const auto& [rows, in, out] : {std::tuple{2048, 640, 2560}, {515, 1280, 1280}}) {
      const at::Tensor weight = RandomWeight({out, in}, types.storage);
      const at::Tensor bias = at::randn({out}).to(types.storage);
      const at::Tensor x = at::randn({rows, in}).to(types.compute);
      const at::Tensor other = at::randn({rows, out}).to(types.compute);
      const auto packed = onednn::PackedWeight::ForLinear(weight, 2048, types.compute).Widened();
      if (onednn::ComputeType(types.storage, at::kCPU) != types.compute) continue;
      const at::Tensor whole = onednn::Linear(x, packed.opaque(), bias.to(types.compute), "gelu");
      const at::Tensor sum =
          onednn::LinearBinary(x, packed.opaque(), bias.to(types.compute), other, "add");
      const Linear linear(weight, bias);
      for (const double divisor : {1.0, 10.0, 1e9}) {
        EXPECT_TRUE(
            WithSmallerParts(divisor, [&] { return linear(x, Activation::kGelu); }).equal(whole));
        EXPECT_TRUE(WithSmallerParts(divisor, [&] { return linear.Add(x, other); }).equal(sum));
      }
    }
  }
}

TEST(PartsTest, NoCutChangesABitOfAnAttention) {
  at::manual_seed(8);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const auto& [queries, keys, heads, width] :
         {std::tuple{1024, 1024, 8, 40}, {300, 77, 5, 64}, {256, 256, 1, 512}}) {
      const auto rows = [&, heads = heads, width = width](int64_t count) {
        return at::randn({2, count, heads * width}).to(type);
      };
      const at::Tensor q = rows(queries), k = rows(keys), v = rows(keys);
      // Causal attention is libtorch's.
      for (const bool causal : {false, true}) {
        const auto attend = [&, heads = heads] { return AttendHeads(q, k, v, heads, causal); };
        const at::Tensor whole = attend();
        for (const double divisor : {10.0, 1e9}) {
          EXPECT_TRUE(WithSmallerParts(divisor, attend).equal(whole)) << heads << causal;
        }
      }
    }
  }
}

// A folder's worth of one convolution, random, in bfloat16.
class ConvFile {
 public:
  ConvFile(int64_t in, int64_t out)
      : path_(std::filesystem::temp_directory_path() /
              ("hanmo-conv-" + std::to_string(getpid()) + ".safetensors")) {
    const at::Tensor weight = RandomWeight({out, in, 3, 3}, at::kBFloat16);
    const at::Tensor bias = at::randn({out}).to(at::kBFloat16);
    const size_t end = weight.nbytes() + bias.nbytes();
    const std::string header = nlohmann::json{{"weight",
                                               {{"dtype", "BF16"},
                                                {"shape", weight.sizes().vec()},
                                                {"data_offsets", {0, weight.nbytes()}}}},
                                              {"bias",
                                               {{"dtype", "BF16"},
                                                {"shape", bias.sizes().vec()},
                                                {"data_offsets", {weight.nbytes(), end}}}}}
                                   .dump();
    const uint64_t header_bytes = header.size();
    std::ofstream file(path_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
    file << header;
    for (const at::Tensor& tensor : {weight, bias}) {
      file.write(static_cast<const char*>(tensor.const_data_ptr()),
                 static_cast<std::streamsize>(tensor.nbytes()));
    }
  }
  ~ConvFile() { std::filesystem::remove(path_); }

  Checkpoint Open(at::ScalarType dtype) const {
    return *Checkpoint::OpenFile(path_, {.dtype = dtype});
  }

 private:
  const std::filesystem::path path_;
};

TEST(PartsTest, NoCutChangesABitOfAConvolution) {
  at::manual_seed(10);
  // Weights that are read once for all channels, and in groups of channels.
  for (const auto& [in, out, height, width, stride] : {std::tuple{320, 320, 40, 24, 1},
                                                       {320, 320, 9, 16, 2},
                                                       {512, 512, 16, 24, 1},
                                                       {1280, 640, 8, 8, 1},
                                                       {640, 640, 7, 5, 2}}) {
    const ConvFile file(in, out);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      Checkpoint checkpoint = file.Open(dtype);
      const Conv2d conv(WeightScope(checkpoint), {.in = in, .out = out, .stride = stride});
      const at::Tensor x = at::randn({3, in, height, width})
                               .to(onednn::ComputeType(dtype, at::kCPU))
                               .contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor whole = conv(x);
      const at::Tensor other = at::randn_like(whole);
      const at::Tensor sum = conv.Add(x, other);
      const at::Tensor expected =
          at::conv2d(x.to(at::kDouble), checkpoint.Take("weight", {out, in, 3, 3})->to(at::kDouble),
                     checkpoint.Take("bias", {out})->to(at::kDouble), stride, 1);
      EXPECT_LT(RelativeError(whole, expected), dtype == at::kFloat ? 1e-5 : 0.02);
      EXPECT_LT(RelativeError(sum, expected + other.to(at::kDouble)), 0.02);
      for (const double divisor : {3.0, 1e9}) {
        const std::string what = std::to_string(in) + " to " + std::to_string(out);
        EXPECT_TRUE(WithSmallerParts(divisor, [&] { return conv(x); }).equal(whole)) << what;
        EXPECT_TRUE(WithSmallerParts(divisor, [&] { return conv.Add(x, other); }).equal(sum))
            << what;
      }
      ExpectRowsIndependent(
          at::cat({x, x, x}), [&](const at::Tensor& rows) { return conv(rows); }, "conv in parts");
    }
  }
}

TEST(PartsTest, NoCutChangesABitOfPictureBlocks) {
  at::manual_seed(9);
  Checkpoint checkpoint = OpenFolder("tests/goldens/vae/sd1");
  const WeightScope decoder = WeightScope(checkpoint).Sub("decoder");
  const WeightScope block = decoder.Sub("up_blocks", 0);
  const int64_t width = block.Sub("resnets", 0).Shape("conv1.weight")[1];
  const ResnetBlock resnet(block.Sub("resnets", 0),
                           {.in = width, .out = width, .groups = 4, .eps = 1e-6});
  const Upsample upsample(block.Sub("upsamplers", 0), width, 64);
  ASSERT_TRUE(decoder.status().ok()) << decoder.status();
  for (const auto& [height, breadth] : {std::pair{64, 48}, {5, 7}, {1, 1}}) {
    const at::Tensor x =
        at::randn({2, width, height, breadth}).contiguous(at::MemoryFormat::ChannelsLast);
    const auto run = [&, height = height, breadth = breadth] {
      return upsample(resnet(ConcatChannels(x.narrow(1, 0, 3), x.narrow(1, 3, width - 3)), {}),
                      2 * height, 2 * breadth);
    };
    const at::Tensor whole = run();
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({2, width, 2 * height, 2 * breadth}));
    for (const double divisor : {1e3, 1e5, 1e9}) {
      EXPECT_TRUE(WithSmallerParts(divisor, run).equal(whole)) << height << " " << divisor;
    }
  }
}

}  // namespace
}  // namespace hanmo
