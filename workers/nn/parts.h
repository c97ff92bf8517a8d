// Operators in parts of a few milliseconds with a yield point after each, so that a step can be
// suspended inside of an operator that takes far longer.
//
// An operator is cut the same way whether anybody listens or not: a suspended step computes what an
// undisturbed one does. Where it is cut depends on shapes and the number of threads; that neither
// changes a bit of the result is what nn_test checks.
#ifndef HANMO_WORKERS_NN_PARTS_H_
#define HANMO_WORKERS_NN_PARTS_H_

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace hanmo {

// How much one part may do: floating-point operations, multiplications and additions apart, and
// elements that are only moved or scaled. A few milliseconds of the threads that this thread's
// operators use.
double PartOperations();
double PartElements();

// For tests: parts on this thread are that much smaller (above 1), so that small networks are cut.
class PartSizeScope {
 public:
  explicit PartSizeScope(double divisor);
  ~PartSizeScope();
  PartSizeScope(const PartSizeScope&) = delete;
  PartSizeScope& operator=(const PartSizeScope&) = delete;

 private:
  const double before_;
};

// Cuts [0, count) into parts of about `size`, a multiple of `multiple` but for the last one, calls
// `run(first, count)` for each and yields after it.
void ForEachPart(int64_t count, int64_t size, int64_t multiple,
                 absl::FunctionRef<void(int64_t first, int64_t count)> run);

struct RowCost {
  double operations = 0;  // for one row
  int64_t least = 128;    // rows of a part: its weight is read once in each
  int64_t most = INT64_MAX;
};

// f(first, count) -> [count, any width] for parts of `rows` rows, put together. Without a cut the
// result of `f` is not copied.
at::Tensor MapRows(int64_t rows, RowCost cost,
                   absl::FunctionRef<at::Tensor(int64_t first, int64_t count)> f);

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_PARTS_H_
