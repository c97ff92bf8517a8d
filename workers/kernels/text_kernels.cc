#include "workers/kernels/text_kernels.h"

#include <cmath>
#include <cstring>

namespace hanmo {

extern const TextKernels kTextKernelsPortable;
#if defined(__x86_64__)
extern const TextKernels kTextKernelsAvx2;
extern const TextKernels kTextKernelsAvx512;
extern const TextKernels kTextKernelsAvx512Bf16;
#endif

const TextKernels& TextKernelsFor(CpuIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::kAvx2:
      return kTextKernelsAvx2;
    case CpuIsa::kAvx512:
      return kTextKernelsAvx512;
    case CpuIsa::kAvx512Bf16:
      return kTextKernelsAvx512Bf16;
#endif
    default:
      return kTextKernelsPortable;
  }
}

uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float FromBf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

float FromFloat16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const float mantissa = static_cast<float>(bits & 1023);
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return (bits & 1023) != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

uint16_t ToFloat16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00;
  if (size >= 65520) return sign | 0x7c00;  // rounds to infinity
  if (size == 0) return sign;
  int exponent = 0;
  std::frexp(size, &exponent);
  // In steps of the last bit: of a normal number 11 bits below its top, of a small one 2^-24.
  const int step = exponent - 11 < -24 ? -24 : exponent - 11;
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, -step)));
  // A carry out of the mantissa raises the exponent, as it should.
  return sign | static_cast<uint16_t>(step == -24 ? steps : steps + ((step + 24) << 10));
}

namespace {

int64_t PackedInputs(WeightType type, int64_t in) {
  return type == WeightType::kBFloat16 ? (in + 1) / 2 * 2 : in;
}

// Position of a weight in the packed data, in elements.
int64_t PackedIndex(const PackedMatrix& matrix, int64_t input, int64_t output) {
  const int64_t panel = output / kPanelColumns;
  const int64_t column = output % kPanelColumns;
  const int64_t base = panel * PackedInputs(matrix.type, matrix.in) * kPanelColumns;
  if (matrix.type != WeightType::kBFloat16) return base + input * kPanelColumns + column;
  return base + (input / 2 * kPanelColumns + column) * 2 + input % 2;
}

template <class T>
void PackPanel(const PackedMatrix& matrix, const PackSource& source, int64_t panel) {
  T* data = static_cast<T*>(const_cast<void*>(matrix.data));
  const T* from = static_cast<const T*>(source.data);
  const int64_t inputs = PackedInputs(matrix.type, matrix.in);
  for (int64_t input = 0; input < inputs; ++input) {
    for (int64_t column = 0; column < kPanelColumns; ++column) {
      const int64_t output = panel * kPanelColumns + column;
      const bool real = input < matrix.in && output < matrix.out;
      data[PackedIndex(matrix, input, output)] =
          real ? from[input * source.stride_in + output * source.stride_out] : T{0};
    }
  }
}

float ToFloat(WeightType type, const void* data, int64_t index) {
  switch (type) {
    case WeightType::kFloat32:
      return static_cast<const float*>(data)[index];
    case WeightType::kFloat16:
      return FromFloat16(static_cast<const uint16_t*>(data)[index]);
    case WeightType::kBFloat16:
      return FromBf16(static_cast<const uint16_t*>(data)[index]);
  }
  return 0;
}

void StoreAs(WeightType type, void* data, int64_t index, float value) {
  switch (type) {
    case WeightType::kFloat32:
      static_cast<float*>(data)[index] = value;
      break;
    case WeightType::kFloat16:
      static_cast<uint16_t*>(data)[index] = ToFloat16(value);
      break;
    case WeightType::kBFloat16:
      static_cast<uint16_t*>(data)[index] = ToBf16(value);
      break;
  }
}

}  // namespace

size_t PackedBytes(WeightType type, int64_t in, int64_t out) {
  return static_cast<size_t>(PackedInputs(type, in) * PaddedColumns(out)) * WeightSize(type);
}

void PackPanels(const PackedMatrix& matrix, const PackSource& source, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    if (matrix.type == WeightType::kFloat32) {
      PackPanel<float>(matrix, source, panel);
    } else {
      PackPanel<uint16_t>(matrix, source, panel);
    }
  }
}

void UnpackOutput(const PackedMatrix& matrix, int64_t output, float* row) {
  for (int64_t input = 0; input < matrix.in; ++input) {
    row[input] = ToFloat(matrix.type, matrix.data, PackedIndex(matrix, input, output));
  }
}

void WriteCache(const CacheSlot& slot, const float* key, const float* value) {
  const int64_t width = ValueWidth(slot.head_dim);
  for (int64_t head = 0; head < slot.kv_heads; ++head) {
    for (int64_t d = 0; d < slot.head_dim; ++d) {
      const int64_t from = head * slot.head_dim + d;
      StoreAs(slot.type, slot.keys, from * kPageTokens + slot.slot, key[from]);
      StoreAs(slot.type, slot.values, (head * kPageTokens + slot.slot) * width + d, value[from]);
    }
  }
}

}  // namespace hanmo
