#include "workers/nn/attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "workers/kernels/attention.h"
#include "workers/nn/parts.h"

namespace hanmo {
namespace {

// Several linear layers over the same input as one, by stacking their outputs.
Linear Stack(const WeightScope& weights, const std::vector<std::string>& names, int64_t in,
             const AttentionShape& shape) {
  std::vector<at::Tensor> matrices;
  std::vector<at::Tensor> biases;
  for (const std::string& name : names) {
    const WeightScope part = weights.Sub(name);
    const bool as_conv = part.Has("weight") && part.Shape("weight").size() == 4;
    matrices.push_back(as_conv ? part.Take("weight", {shape.width, in, 1, 1}).flatten(1)
                               : part.Take("weight", {shape.width, in}));
    if (shape.qkv_bias) biases.push_back(part.Take("bias", {shape.width}));
  }
  if (!weights.status().ok()) return Linear();
  return Linear(at::cat(matrices), biases.empty() ? at::Tensor() : at::cat(biases));
}

at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(1, 2);
}

// One head of one sample; x [n, l, width] with a dense last dimension.
template <typename T>
T* HeadOf(T* data, const at::Tensor& x, int64_t sample, int64_t offset) {
  return data + (sample * x.stride(0) + offset) * x.element_size();
}

// nullptr where libtorch's attention has to serve.
const AttentionKernel* KernelFor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 int64_t width) {
  const bool dense = q.stride(-1) == 1 && k.stride(-1) == 1 && v.stride(-1) == 1;
  if (!q.is_cpu() || !dense || width > kMaxAttentionWidth) return nullptr;
  if (q.scalar_type() == at::kFloat) return FindAttentionKernel(AttentionType::kFloat);
  if (q.scalar_type() == at::kBFloat16) return FindAttentionKernel(AttentionType::kBfloat16);
  return nullptr;
}

at::Tensor AttendWith(const AttentionKernel& kernel, const at::Tensor& q, const at::Tensor& k,
                      const at::Tensor& v, int64_t heads) {
  // Queries of one task: a multiple of the kernel's rows.
  constexpr int64_t kChunk = 64;
  const int64_t width = q.size(2) / heads;
  at::Tensor out = at::empty({q.size(0), q.size(1), q.size(2)}, q.options());
  const AttentionHead head = {.keys = k.size(1),
                              .width = width,
                              .q_stride = q.stride(1),
                              .k_stride = k.stride(1),
                              .v_stride = v.stride(1),
                              .out_stride = out.stride(1),
                              .scale = 1.0f / std::sqrt(static_cast<float>(width))};
  const int64_t count = q.size(0) * heads;
  const int64_t words = kernel.packed_words(head);
  const at::Tensor packed = at::empty({count, words}, at::kInt);
  auto* const to = static_cast<uint32_t*>(packed.data_ptr());
  const auto* const qs = static_cast<const char*>(q.const_data_ptr());
  const auto* const ks = static_cast<const char*>(k.const_data_ptr());
  const auto* const vs = static_cast<const char*>(v.const_data_ptr());
  auto* const outs = static_cast<char*>(out.data_ptr());
  // Every thread gets as many tasks. To pack an element takes as long as to move four.
  const int64_t threads = at::get_num_threads();
  const auto heads_of_part =
      static_cast<int64_t>(PartElements() / (8.0 * static_cast<double>(head.keys * width)));
  ForEachPart(count, heads_of_part, threads, [&](int64_t first_head, int64_t some_heads) {
    at::parallel_for(first_head, first_head + some_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t offset = i % heads * width;
        kernel.pack(head, HeadOf(ks, k, i / heads, offset), HeadOf(vs, v, i / heads, offset),
                    to + i * words);
      }
    });
  });
  const int64_t chunks = (q.size(1) + kChunk - 1) / kChunk;
  const auto some = static_cast<int64_t>(PartOperations() /
                                         (4.0 * static_cast<double>(kChunk * head.keys * width)));
  ForEachPart(count * chunks, some, threads, [&](int64_t first_task, int64_t tasks) {
    at::parallel_for(first_task, first_task + tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task / chunks;
        const int64_t first = task % chunks * kChunk;
        const int64_t offset = i % heads * width;
        kernel.attend(head, HeadOf(qs, q, i / heads, first * q.stride(1) + offset),
                      std::min(kChunk, q.size(1) - first), to + i * words,
                      HeadOf(outs, out, i / heads, first * out.stride(1) + offset));
      }
    });
  });
  return out;
}

// libtorch's attention, some heads at a time where there is much to do: it treats each apart.
at::Tensor AttendWithTorch(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t heads, bool causal) {
  const auto attend = [causal](const at::Tensor& qs, const at::Tensor& ks, const at::Tensor& vs) {
    return at::scaled_dot_product_attention(qs, ks, vs, {}, 0.0, causal);
  };
  const at::Tensor qs = SplitHeads(q, heads);
  const at::Tensor ks = SplitHeads(k, heads), vs = SplitHeads(v, heads);
  const double head = 4.0 * static_cast<double>(q.size(1) * k.size(1) * qs.size(3));
  const auto some = static_cast<int64_t>(PartOperations() / head);
  if (!q.is_cpu() || some >= q.size(0) * heads) {
    return attend(qs, ks, vs).transpose(1, 2).flatten(2);
  }
  const at::Tensor out = at::empty({q.size(0), q.size(1), heads, qs.size(3)}, q.options());
  for (int64_t i = 0; i < q.size(0); ++i) {
    ForEachPart(heads, some, 1, [&](int64_t first, int64_t count) {
      const auto part = [&](const at::Tensor& x) {
        return x.narrow(0, i, 1).narrow(1, first, count);
      };
      part(out.transpose(1, 2)).copy_(attend(part(qs), part(ks), part(vs)));
    });
  }
  return out.flatten(2);
}

}  // namespace

at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                       bool causal) {
  const AttentionKernel* kernel = causal ? nullptr : KernelFor(q, k, v, q.size(2) / heads);
  if (kernel != nullptr) return AttendWith(*kernel, q, k, v, heads);
  return AttendWithTorch(q, k, v, heads, causal);
}

Attention::Attention(const WeightScope& weights, const AttentionShape& shape,
                     const AttentionNames& names)
    : shape_(shape) {
  if (shape.context_width == 0) {
    fused_ = Stack(weights, {names.q, names.k, names.v}, shape.width, shape);
  } else {
    q_ = Linear(weights.Sub(names.q), shape.width, shape.width, shape.qkv_bias);
    fused_ = Stack(weights, {names.k, names.v}, shape.context_width, shape);
  }
  out_ = Linear(weights.Sub(names.out), shape.width, shape.width);
}

at::Tensor Attention::Add(const at::Tensor& x, const at::Tensor& context,
                          const at::Tensor& residual) const {
  at::Tensor attended;
  if (shape_.context_width == 0) {
    const std::vector<at::Tensor> qkv = fused_(x).chunk(3, -1);
    attended = AttendHeads(qkv[0], qkv[1], qkv[2], shape_.heads, shape_.causal);
  } else {
    const std::vector<at::Tensor> kv = fused_(context).chunk(2, -1);
    attended = AttendHeads(q_(x), kv[0], kv[1], shape_.heads);
  }
  return out_.Add(attended, residual);
}

}  // namespace hanmo
