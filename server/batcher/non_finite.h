// A row whose model computed NaN or Inf fails with INTERNAL and a message that begins so. The
// worker writes it, the server counts it.
#ifndef HANMO_SERVER_BATCHER_NON_FINITE_H_
#define HANMO_SERVER_BATCHER_NON_FINITE_H_

namespace hanmo {

inline constexpr char kNonFinite[] = "non-finite: ";

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_NON_FINITE_H_
