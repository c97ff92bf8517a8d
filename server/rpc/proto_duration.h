#ifndef HANMO_SERVER_RPC_PROTO_DURATION_H_
#define HANMO_SERVER_RPC_PROTO_DURATION_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace hanmo {

inline void SetDuration(absl::Duration from, google::protobuf::Duration* to) {
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &from));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(from)));
}

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_PROTO_DURATION_H_
