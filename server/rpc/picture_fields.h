// The part of a request that asks for pictures.
#ifndef HANMO_SERVER_RPC_PICTURE_FIELDS_H_
#define HANMO_SERVER_RPC_PICTURE_FIELDS_H_

#include <cstdint>

#include "hanmo/v1/generation.pb.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"

namespace hanmo {

// Checks proto.picture and fills plan->request.samples; `drawn_seed` is used when it names none.
void PlanPicture(const hanmo::v1::GenerateRequest& proto, uint64_t drawn_seed, GenerationPlan* plan,
                 Violations* violations);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_PICTURE_FIELDS_H_
