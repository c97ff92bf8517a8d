// Philox4x32-10, the counter-based random generator of Salmon, Moraes, Dror and Shaw, "Parallel
// Random Numbers: As Easy as 1, 2, 3" (SC 2011). A draw is a function of (key, counter) alone, so
// the random number of token i needs no state that could be lost or shared.
#ifndef HANMO_WORKERS_MODELS_PHILOX_H_
#define HANMO_WORKERS_MODELS_PHILOX_H_

#include <array>
#include <cstdint>

namespace hanmo {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The number in [0, 1) for draw `index` of `seed`: words 0 and 1 of the block with counter
// {index low, index high, 0, 0} and key {seed low, seed high}, as 53 bits.
double UniformDraw(uint64_t seed, uint64_t index);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_PHILOX_H_
