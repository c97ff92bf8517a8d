// Early return for absl::Status and absl::StatusOr, so that loading code reads as a straight line.
#ifndef HANMO_WORKERS_CHECKPOINT_STATUS_MACROS_H_
#define HANMO_WORKERS_CHECKPOINT_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define HANMO_RETURN_IF_ERROR(expr)                               \
  do {                                                            \
    if (absl::Status hanmo_status = (expr); !hanmo_status.ok()) { \
      return hanmo_status;                                        \
    }                                                             \
  } while (false)

#define HANMO_CONCAT_INNER(a, b) a##b
#define HANMO_CONCAT(a, b) HANMO_CONCAT_INNER(a, b)

// HANMO_ASSIGN_OR_RETURN(auto tensor, checkpoint.Take(...));
#define HANMO_ASSIGN_OR_RETURN(lhs, expr) \
  HANMO_ASSIGN_OR_RETURN_INNER(HANMO_CONCAT(hanmo_or_, __LINE__), lhs, expr)
#define HANMO_ASSIGN_OR_RETURN_INNER(var, lhs, expr) \
  auto var = (expr);                                 \
  if (!var.ok()) return std::move(var).status();     \
  lhs = *std::move(var)

#endif  // HANMO_WORKERS_CHECKPOINT_STATUS_MACROS_H_
