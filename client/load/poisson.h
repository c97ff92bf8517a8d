// Arrivals that know nothing of each other, as those of many users.
#ifndef HANMO_CLIENT_LOAD_POISSON_H_
#define HANMO_CLIENT_LOAD_POISSON_H_

#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace hanmo {

// The instants of a Poisson process from zero on; the same for the same seed.
class PoissonProcess {
 public:
  PoissonProcess(double per_second, uint64_t seed) : gap_(per_second), random_(seed) {}

  absl::Duration Next() { return at_ += absl::Seconds(gap_(random_)); }

 private:
  std::exponential_distribution<double> gap_;
  std::mt19937_64 random_;
  absl::Duration at_ = absl::ZeroDuration();
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_POISSON_H_
