// Attention of one head with an online softmax: scores never leave the cache, and a query's result
// does not depend on the other queries. For CPUs with AVX-512; elsewhere libtorch's is used.
#ifndef HANMO_WORKERS_KERNELS_ATTENTION_H_
#define HANMO_WORKERS_KERNELS_ATTENTION_H_

#include <cstdint>

namespace hanmo {

enum class AttentionType { kFloat, kBfloat16 };

// One head. Strides are elements from one row to the next; a row's `width` elements are adjacent.
struct AttentionHead {
  int64_t keys = 0;
  int64_t width = 0;  // 1 to kMaxAttentionWidth
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
  float scale = 1;  // of the scores, > 0
};

inline constexpr int64_t kMaxAttentionWidth = 512;

// Elements are float, or bfloat16 as bits with sums and the softmax in float.
struct AttentionKernel {
  // 32-bit words that `pack` writes for one head.
  int64_t (*packed_words)(const AttentionHead& head);
  // Rearranges the keys and values of one head for `attend`.
  void (*pack)(const AttentionHead& head, const void* k, const void* v, uint32_t* packed);
  // out = softmax(scale * q k^T) v for `queries` rows.
  void (*attend)(const AttentionHead& head, const void* q, int64_t queries, const uint32_t* packed,
                 void* out);
};

// nullptr where this machine has no kernel for the type.
const AttentionKernel* FindAttentionKernel(AttentionType type);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_ATTENTION_H_
