// The inner loops of a text model on a CPU: linear layers over prepacked weights, norms, rotary
// positions, gates, and attention over a paged cache. Plain pointers, no libtorch; the caller
// splits the work by ranges and runs the ranges on its threads.
//
// Every result element is summed in one fixed order that depends on its own inputs alone, so it is
// equal to the bit for any number of rows, any split into ranges, and any placement of pages.
// Different instruction sets may differ by rounding.
#ifndef HANMO_WORKERS_KERNELS_TEXT_KERNELS_H_
#define HANMO_WORKERS_KERNELS_TEXT_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "workers/kernels/cpu_isa.h"

namespace hanmo {

// Type of weights and cached keys and values. Sums, norms and the residual stream are float32.
enum class WeightType { kFloat32, kFloat16, kBFloat16 };

// Inputs of linear layers ("activations") are float32, except where an instruction multiplies pairs
// of bfloat16.
constexpr bool ActivationsAreBf16(CpuIsa isa, WeightType type) {
  return isa == CpuIsa::kAvx512Bf16 && type == WeightType::kBFloat16;
}
constexpr size_t WeightSize(WeightType type) { return type == WeightType::kFloat32 ? 4 : 2; }

// Outputs are computed in panels of this many columns; buffers are padded to whole panels.
inline constexpr int64_t kPanelColumns = 64;
constexpr int64_t PaddedColumns(int64_t columns) {
  return (columns + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
}

// A weight matrix in the order in which the kernels read it: panel by panel, inside a panel input
// by input (bfloat16: by pairs of inputs), 64 outputs side by side. Padding is zero.
struct PackedMatrix {
  WeightType type = WeightType::kFloat32;
  int64_t in = 0;
  int64_t out = 0;
  const void* data = nullptr;  // 64-byte aligned, PackedBytes(type, in, out)

  int64_t panels() const { return PaddedColumns(out) / kPanelColumns; }
};

size_t PackedBytes(WeightType type, int64_t in, int64_t out);
// Packs panels [begin, end) of `source`, whose weight from input i to output o is element
// i * stride_in + o * stride_out, into the matrix's data.
struct PackSource {
  const void* data = nullptr;
  int64_t stride_in = 0;
  int64_t stride_out = 0;
};
void PackPanels(const PackedMatrix& matrix, const PackSource& source, int64_t begin, int64_t end);
// The weights of one output, as float32 [in]: a row of a tied embedding.
void UnpackOutput(const PackedMatrix& matrix, int64_t output, float* row);

enum class TextActivation { kNone, kGeluTanh, kGeluErf, kRelu, kSilu };

// output = activation(input · weights + bias), or added to what is there.
struct LinearCall {
  PackedMatrix weights;
  const float* bias = nullptr;  // [PaddedColumns(out)], zero in the padding; null: none
  const void* input = nullptr;  // activations [rows, input_stride], finite up to an even column
  int64_t input_stride = 0;     // in elements
  int64_t rows = 0;
  TextActivation activation = TextActivation::kNone;
  enum class Output { kFloat32, kAddFloat32, kActivations } output_as = Output::kFloat32;
  void* output = nullptr;  // [rows, output_stride]; the padding is written, too
  int64_t output_stride = 0;
};

// Layer norm: output = (x - mean) / √(variance + epsilon) · weight + bias, row by row.
// RMS norm: output = x / √(mean of x² + epsilon) · weight, row by row.
struct NormCall {
  WeightType type = WeightType::kFloat32;  // decides the type of the output
  const float* x = nullptr;                // [rows, stride]
  const float* weight = nullptr;
  const float* bias = nullptr;  // of a layer norm
  void* output = nullptr;       // activations [rows, stride]; the padding is left alone; may be x
  int64_t columns = 0;
  int64_t stride = 0;
  float epsilon = 0;
};

// Turns pairs of every head's elements by angles of their token, in place:
// (a, b) becomes (a cos - b sin, b cos + a sin).
struct RopeCall {
  // Pair i is (x[i], x[head_dim / 2 + i]) or (x[2i], x[2i + 1]).
  enum class Pairs { kHalves, kNeighbours } pairs = Pairs::kHalves;
  float* x = nullptr;  // [tokens, stride], heads side by side
  int64_t stride = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;        // even
  const float* cos = nullptr;  // [tokens, head_dim / 2]
  const float* sin = nullptr;
};

// output[i] = activation(x[i]) · x[columns + i], row by row.
struct GateCall {
  WeightType type = WeightType::kFloat32;  // decides the type of the output
  TextActivation activation = TextActivation::kSilu;
  const float* x = nullptr;  // [rows, x_stride]
  int64_t x_stride = 0;
  int64_t columns = 0;
  void* output = nullptr;  // activations [rows, output_stride]; the padding is left alone
  int64_t output_stride = 0;
};

inline constexpr int64_t kPageTokens = 16;

// Slots [begin, end) of a sample's pages, begin < end. Slot s is in entry s / 16 of its page table.
struct SlotRange {
  int32_t begin = 0;
  int32_t end = 0;
};
// Slots of the pages that a range touches.
constexpr int64_t TouchedSlots(SlotRange range) {
  return ((range.end + kPageTokens - 1) / kPageTokens - range.begin / kPageTokens) * kPageTokens;
}

// Attention of each (token, head) to the cached slots that its token sees, in the order of its
// ranges. Heads share keys and values in groups of heads / kv_heads neighbours.
// Keys [page, kv head, head_dim, token], values [page, kv head, token, value_width].
struct AttentionCall {
  WeightType type = WeightType::kFloat32;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;
  int64_t value_width = 0;  // head_dim rounded up to 16; the padding is finite
  float scale = 1;
  const float* query = nullptr;  // [tokens, query_stride], heads side by side
  int64_t query_stride = 0;
  // Token t sees ranges[first_range[t]] up to ranges[first_range[t + 1]], at least one; they do not
  // overlap. A causal model has the one range [0, position + 1).
  const SlotRange* ranges = nullptr;
  const int64_t* first_range = nullptr;
  const int32_t* const* page_tables = nullptr;  // of token t
  const void* keys = nullptr;
  const void* values = nullptr;
  void* output = nullptr;  // activations [tokens, output_stride]
  int64_t output_stride = 0;
};
constexpr int64_t ValueWidth(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
// Floats of scratch that one thread needs for tokens whose ranges touch up to `slots` together.
constexpr int64_t AttentionScratch(int64_t slots, int64_t head_dim) {
  return slots + ValueWidth(head_dim);
}

struct TextKernels {
  // Panels [begin, end) of the output.
  void (*linear)(const LinearCall& call, int64_t begin, int64_t end);
  // Rows [begin, end).
  void (*layer_norm)(const NormCall& call, int64_t begin, int64_t end);
  void (*rms_norm)(const NormCall& call, int64_t begin, int64_t end);
  // Tokens [begin, end).
  void (*rope)(const RopeCall& call, int64_t begin, int64_t end);
  // Rows [begin, end).
  void (*gate)(const GateCall& call, int64_t begin, int64_t end);
  // Items [begin, end), where item i is head i % heads of token i / heads.
  void (*attention)(const AttentionCall& call, int64_t begin, int64_t end, float* scratch);
};

// `isa` must be one of SupportedIsas().
const TextKernels& TextKernelsFor(CpuIsa isa);

// Writes one token's key and value of all kv heads into slot `slot` of their page; pointers to the
// page's first element.
struct CacheSlot {
  WeightType type = WeightType::kFloat32;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  void* keys = nullptr;
  void* values = nullptr;
  int64_t slot = 0;
};
void WriteCache(const CacheSlot& slot, const float* key, const float* value);

// Rounds to nearest even.
uint16_t ToBf16(float value);
float FromBf16(uint16_t bits);
uint16_t ToFloat16(float value);
float FromFloat16(uint16_t bits);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_KERNELS_H_
