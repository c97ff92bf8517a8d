// How a model runs, beyond the type and device that its Checkpoint gives. Fixed at load.
#ifndef HANMO_WORKERS_NN_MODEL_OPTIONS_H_
#define HANMO_WORKERS_NN_MODEL_OPTIONS_H_

namespace hanmo {

struct ModelOptions {
  // The result of a row never depends on the other rows of its batch, bit for bit. On a CPU it
  // never does (see onednn.h); elsewhere this makes the models run one row at a time.
  bool deterministic = false;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_MODEL_OPTIONS_H_
