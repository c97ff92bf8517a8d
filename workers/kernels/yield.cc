#include "workers/kernels/yield.h"

namespace hanmo::yield_internal {

constinit thread_local YieldListener* listener = nullptr;

void Tell() {
  YieldListener* const told = listener;
  const YieldScope nobody(nullptr);
  if (!told->OnYieldPoint()) throw Abandoned();
}

}  // namespace hanmo::yield_internal
