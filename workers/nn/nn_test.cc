// The blocks against libtorch's own operators, and that no row depends on its company: at the
// widths of Stable Diffusion, which the recorded checkpoints are too small for.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "workers/models/testing/golden.h"
#include "workers/nn/attention.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/linear.h"
#include "workers/nn/norm.h"
#include "workers/nn/onednn.h"
#include "workers/nn/picture_blocks.h"
#include "workers/nn/testing/blocks.h"
#include "workers/nn/timestep_embedding.h"

namespace hanmo {
namespace {

using ::hanmo::testing::ExpectRowsIndependent;
using ::hanmo::testing::kTypes;
using ::hanmo::testing::OpenFolder;
using ::hanmo::testing::RandomWeight;
using ::hanmo::testing::RelativeError;
using ::hanmo::testing::Types;

TEST(OnednnTest, LinearFollowsLibtorchAndRowsAreIndependent) {
  at::manual_seed(1);
  for (const Types& types : kTypes) {
    for (const auto& [in, out] : {std::pair{320, 1280}, {768, 320}, {33, 17}, {1280, 640}}) {
      const at::Tensor weight = RandomWeight({out, in}, types.storage);
      const at::Tensor bias = at::randn({out}).to(types.compute);
      const auto packed = onednn::PackedWeight::ForLinear(weight, 64, types.compute).Widened();
      for (const int64_t rows : {2, 16, 77, 300}) {
        const at::Tensor x = at::randn({rows, in}).to(types.compute);
        const at::Tensor y = onednn::Linear(x, packed.opaque(), bias, "none");
        const at::Tensor expected =
            at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
        EXPECT_LT(RelativeError(y, expected), types.tolerance) << in << " to " << out;
        const at::Tensor gelu = onednn::Linear(x, packed.opaque(), bias, "gelu");
        EXPECT_LT(RelativeError(gelu, at::gelu(expected)), types.tolerance);
      }
      ExpectRowsIndependent(
          at::randn({7, 16, in}).to(types.compute),
          [&](const at::Tensor& x) {
            return onednn::Linear(x.flatten(0, 1), packed.opaque(), bias, "gelu")
                .unflatten(0, {x.size(0), 16});
          },
          "linear");
    }
  }
}

TEST(OnednnTest, ConvFollowsLibtorchAndPicturesAreIndependent) {
  at::manual_seed(2);
  for (const Types& types : kTypes) {
    for (const auto& [in, out, kernel, stride, size] : {std::tuple{4, 320, 3, 1, 16},
                                                        {320, 320, 3, 2, 8},
                                                        {640, 320, 3, 1, 8},
                                                        {320, 4, 3, 1, 16},
                                                        {17, 33, 1, 1, 5},
                                                        {64, 64, 3, 1, 1},
                                                        {6, 6, 5, 2, 2}}) {
      const onednn::ConvGeometry geometry = {.padding = kernel / 2, .stride = stride};
      const at::Tensor weight = RandomWeight({out, in, kernel, kernel}, types.storage);
      const at::Tensor bias = at::randn({out}).to(types.compute);
      const auto packed =
          onednn::PackedWeight::ForConv(weight, geometry, {2, in, 64, 64}, types.compute).Widened();
      const at::Tensor x = at::randn({7, in, size, size})
                               .to(types.compute)
                               .contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor expected = at::conv2d(x.to(at::kDouble), weight.to(at::kDouble),
                                             bias.to(at::kDouble), stride, kernel / 2);
      const at::Tensor y = onednn::Conv(x, packed.opaque(), bias, geometry);
      EXPECT_LT(RelativeError(y, expected), types.tolerance) << in << " to " << out;
      const at::Tensor other = at::randn_like(y);
      const at::Tensor sum = other.clone();
      onednn::ConvAdd(x, packed.opaque(), bias, sum, geometry);
      EXPECT_LT(RelativeError(sum, expected + other.to(at::kDouble)), types.tolerance);
      ExpectRowsIndependent(
          x,
          [&](const at::Tensor& rows) {
            return onednn::Conv(rows.contiguous(at::MemoryFormat::ChannelsLast), packed.opaque(),
                                bias, geometry);
          },
          "conv");
    }
  }
}

TEST(OnednnTest, WeightsAreStoredInTheServingTypeOnly) {
  const at::Tensor weight = RandomWeight({64, 64}, at::kBFloat16);
  const auto packed = onednn::PackedWeight::ForLinear(weight, 64, at::kFloat);
  EXPECT_EQ(packed.stored_bytes(), weight.nbytes());
  EXPECT_EQ(packed.Widened().opaque().scalar_type(), at::kFloat);
  EXPECT_EQ(packed.Widened().Widened().opaque().scalar_type(), at::kFloat);
}

TEST(LinearTest, FusesWhatFollows) {
  at::manual_seed(3);
  const at::Tensor weight = RandomWeight({24, 40}, at::kFloat), bias = at::randn({24});
  const Linear linear(weight, bias);
  for (const int64_t rows : {1, 2, 9}) {
    const at::Tensor x = at::randn({rows, 40}), other = at::randn({rows, 24});
    const at::Tensor y = at::linear(x, weight, bias);
    EXPECT_LT(RelativeError(linear(x), y), 1e-5);
    EXPECT_LT(RelativeError(linear.Add(x, other), y + other), 1e-5);
    EXPECT_LT(RelativeError(linear.Multiply(x, other), y * other), 1e-5);
    EXPECT_LT(RelativeError(linear(x, Activation::kGelu), at::gelu(y)), 1e-5);
    EXPECT_LT(RelativeError(linear(x, Activation::kGeluTanh), at::gelu(y, "tanh")), 1e-5);
    EXPECT_LT(RelativeError(linear(x, Activation::kSilu), at::silu(y)), 1e-5);
    EXPECT_LT(RelativeError(linear(x, Activation::kRelu), at::relu(y)), 1e-5);
    EXPECT_LT(RelativeError(linear(x, Activation::kQuickGelu), y * at::sigmoid(1.702 * y)), 1e-5);
  }
}

TEST(LinearTest, KeepsLeadingDimensions) {
  const Linear linear(RandomWeight({3, 5}, at::kFloat), {});
  EXPECT_EQ(linear(at::randn({1, 5})).sizes(), at::IntArrayRef({1, 3}));
  EXPECT_EQ(linear(at::randn({2, 1, 4, 5})).sizes(), at::IntArrayRef({2, 1, 4, 3}));
}

TEST(AttentionBlockTest, FollowsLibtorchAndRowsAreIndependent) {
  at::manual_seed(4);
  for (const auto& [queries, keys, heads, width] :
       {std::tuple{100, 77, 8, 40}, {64, 64, 4, 80}, {300, 520, 2, 64}, {5, 1, 1, 7}}) {
    // Slices of one projection, as self attention passes them.
    const at::Tensor q = at::randn({7, queries, 3 * heads * width}).narrow(2, 0, heads * width);
    const at::Tensor k = at::randn({7, keys, 2 * heads * width}).narrow(2, 0, heads * width);
    const at::Tensor v = at::randn({7, keys, heads * width});
    const auto split = [heads = heads](const at::Tensor& x) {
      return x.unflatten(2, {heads, -1}).transpose(1, 2).to(at::kDouble);
    };
    const at::Tensor expected =
        at::scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).flatten(2);
    EXPECT_LT(RelativeError(AttendHeads(q, k, v, heads), expected), 1e-5);
    const auto rough = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
    EXPECT_LT(RelativeError(AttendHeads(rough(q), rough(k), rough(v), heads), expected), 0.02);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor kt = k.to(type), vt = v.to(type);
      ExpectRowsIndependent(
          q.to(type),
          [&, heads = heads](const at::Tensor& rows) {
            // Every row sees the same keys, so that the batch alone differs.
            return AttendHeads(rows, kt.narrow(0, 0, 1).expand({rows.size(0), -1, -1}),
                               vt.narrow(0, 0, 1).expand({rows.size(0), -1, -1}), heads);
          },
          "attention");
    }
  }
}

TEST(AttentionBlockTest, CausalQueriesSeeNoLaterKey) {
  at::manual_seed(5);
  const at::Tensor q = at::randn({2, 9, 8}), k = at::randn({2, 9, 8}), v = at::randn({2, 9, 8});
  at::Tensor changed = v.clone();
  changed.narrow(1, 5, 4).fill_(7);
  EXPECT_TRUE(AttendHeads(q, k, v, 2, true)
                  .narrow(1, 0, 5)
                  .equal(AttendHeads(q, k, changed, 2, true).narrow(1, 0, 5)));
}

TEST(GroupNormBlockTest, FollowsLibtorch) {
  at::manual_seed(6);
  Checkpoint checkpoint = OpenFolder("tests/goldens/vae/sd1");
  const WeightScope weights =
      WeightScope(checkpoint).Sub("decoder.mid_block.attentions.0.group_norm");
  const GroupNorm norm(weights, 8, 4, 1e-6);
  const at::Tensor weight = weights.Take("weight", {8}), bias = weights.Take("bias", {8});
  ASSERT_TRUE(weights.status().ok()) << weights.status();
  for (const auto& [height, width, mean] : {std::tuple{1, 1, 0.0}, {5, 7, 3.0}, {32, 40, -100.0}}) {
    const at::Tensor x =
        (at::randn({3, 8, height, width}) + mean).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor offset = at::randn({3, 8});
    const auto reference = [&](const at::Tensor& moved) {
      return at::group_norm(moved.to(at::kDouble), 4, weight.to(at::kDouble), bias.to(at::kDouble),
                            1e-6);
    };
    const at::Tensor moved = x.to(at::kDouble) + offset.unsqueeze(-1).unsqueeze(-1);
    // float32 holds values near 100 to 8e-6.
    EXPECT_LT(RelativeError(norm(x), reference(x)), 2e-5);
    EXPECT_LT(RelativeError(norm.Silu(x), at::silu(reference(x))), 2e-5);
    EXPECT_LT(RelativeError(norm.Silu(x, offset), at::silu(reference(moved))), 2e-5);
    EXPECT_LT(
        RelativeError(norm.Silu(x.to(at::kBFloat16)), at::silu(reference(x.to(at::kBFloat16)))),
        0.01);
    EXPECT_TRUE(norm(x).is_contiguous(at::MemoryFormat::ChannelsLast));
  }
}

TEST(GroupNormBlockTest, NamesGroupsThatDoNotDivide) {
  Checkpoint checkpoint = OpenFolder("tests/goldens/vae/sd1");
  const WeightScope weights(checkpoint);
  GroupNorm(weights.Sub("decoder.mid_block.attentions.0.group_norm"), 8, 3, 1e-6);
  EXPECT_NE(weights.status().message().find("norm_num_groups"), absl::string_view::npos);
}

TEST(TimestepEmbeddingTest, FractionalTimestepsAreIndependent) {
  Checkpoint checkpoint = OpenFolder("tests/goldens/unet/sd1");
  const WeightScope weights(checkpoint);
  const TimestepEmbedding embed(weights.Sub("time_embedding"), {.in = 4, .out = 16});
  ASSERT_TRUE(weights.status().ok()) << weights.status();
  const at::Tensor timesteps =
      at::tensor({999.0, 0.0, 12.375, 500.5, 1.0, 2.0, 3.0}).to(at::kFloat);
  ExpectRowsIndependent(
      timesteps, [&](const at::Tensor& rows) { return embed(rows, at::kFloat); }, "timesteps");
}

}  // namespace
}  // namespace hanmo
