// Where a long computation may be interrupted: code that takes milliseconds calls YieldPoint()
// between its operators and between the parts of the large ones, and whoever runs it may listen.
//
// What is suspended stays on the stack of its thread, and the listener runs on top of it. So there
// is no second thread, no second OpenMP pool and nothing to hand over; and whatever runs meanwhile
// ends before the suspended code goes on.
#ifndef HANMO_WORKERS_KERNELS_YIELD_H_
#define HANMO_WORKERS_KERNELS_YIELD_H_

#include <exception>

namespace hanmo {

class YieldListener {
 public:
  virtual ~YieldListener() = default;
  // At a yield point, on the computing thread. May run other computations, whose yield points are
  // not heard. False abandons the interrupted one: YieldPoint throws Abandoned.
  virtual bool OnYieldPoint() = 0;
};

// Unwinds an abandoned computation: the frames between YieldPoint and the worker's border hold
// tensors, and no status passes through operators. The one exception that our own code throws.
class Abandoned : public std::exception {
 public:
  const char* what() const noexcept override { return "abandoned"; }
};

namespace yield_internal {
extern constinit thread_local YieldListener* listener;
void Tell();
}  // namespace yield_internal

// One comparison where nobody listens. Never call it inside a parallel region, or while data that
// other computations of this thread use is being changed.
inline void YieldPoint() {
  if (yield_internal::listener != nullptr) yield_internal::Tell();
}

// Makes `listener` (null: nobody) hear this thread's yield points for the life of the scope.
class YieldScope {
 public:
  explicit YieldScope(YieldListener* listener) : before_(yield_internal::listener) {
    yield_internal::listener = listener;
  }
  ~YieldScope() { yield_internal::listener = before_; }
  YieldScope(const YieldScope&) = delete;
  YieldScope& operator=(const YieldScope&) = delete;

 private:
  YieldListener* const before_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_YIELD_H_
