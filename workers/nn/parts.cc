#include "workers/nn/parts.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "workers/kernels/yield.h"

namespace hanmo {
namespace {

// Of one thread: 5 to 7 ms at 150 billion operations a second, which a core with AVX-512 reaches in
// float32, or at 200 million elements a second, which it reads, scales and writes. Smaller parts
// cost: convolutions of half as much take 2 to 5 % longer.
constexpr double kThreadOperations = 1e9;
constexpr double kThreadElements = 1e6;

thread_local double size_divisor = 1;

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

double PartOperations() { return kThreadOperations * at::get_num_threads() / size_divisor; }
double PartElements() { return kThreadElements * at::get_num_threads() / size_divisor; }

PartSizeScope::PartSizeScope(double divisor) : before_(std::exchange(size_divisor, divisor)) {}
PartSizeScope::~PartSizeScope() { size_divisor = before_; }

void ForEachPart(int64_t count, int64_t size, int64_t multiple,
                 absl::FunctionRef<void(int64_t first, int64_t count)> run) {
  size = std::max<int64_t>(1, size);
  const int64_t parts = std::max<int64_t>(1, (count + size / 2) / size);
  const int64_t each = RoundUp((count + parts - 1) / parts, multiple);
  for (int64_t first = 0; first < count; first += each) {
    run(first, std::min(each, count - first));
    YieldPoint();
  }
}

at::Tensor MapRows(int64_t rows, RowCost cost,
                   absl::FunctionRef<at::Tensor(int64_t first, int64_t count)> f) {
  constexpr int64_t kMultiple = 64;
  const auto fitting = static_cast<int64_t>(PartOperations() / std::max(1.0, cost.operations));
  at::Tensor out;
  ForEachPart(rows, std::clamp(fitting, cost.least, cost.most), kMultiple,
              [&](int64_t first, int64_t count) {
                at::Tensor part = f(first, count);
                if (count == rows) {
                  out = std::move(part);
                  return;
                }
                if (!out.defined()) out = at::empty({rows, part.size(1)}, part.options());
                out.narrow(0, first, count).copy_(part);
              });
  return out;
}

}  // namespace hanmo
