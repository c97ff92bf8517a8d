// What every call needs of the server.
#ifndef HANMO_SERVER_RPC_CALL_CONTEXT_H_
#define HANMO_SERVER_RPC_CALL_CONTEXT_H_

#include <cstdint>
#include <string>

#include "server/batcher/batcher.h"
#include "server/media/task_pool.h"
#include "server/open_inference/repository_control.h"
#include "server/rpc/calls.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/figures.h"
#include "server/telemetry/log.h"
#include "server/telemetry/tracer.h"

namespace hanmo {

// Everything outlives the calls.
struct CallContext {
  const ModelTable* models = nullptr;
  Batcher* batcher = nullptr;
  TaskPool* media_pool = nullptr;     // encodes pictures; weights are bytes of pixels
  TaskPool* tokenize_pool = nullptr;  // long texts; weights are bytes of text
  Figures* figures = nullptr;
  Log* log = nullptr;
  Calls* calls = nullptr;
  // Of one stream.
  uint64_t preview_bytes_per_second = 0;
  std::string version;                              // of the server
  RepositoryControl* repository_control = nullptr;  // null: models stay as they are
  Tracer* tracer = nullptr;                         // null: nothing is traced
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_CALL_CONTEXT_H_
