// Reads the pickle of a torch.save archive without executing it. Pickle is a program for a stack
// machine that may import and call anything; this machine has plain values and containers, and of
// all callables exactly those that rebuild a tensor. It never creates objects of other classes.
#ifndef HANMO_WORKERS_CHECKPOINT_PICKLE_H_
#define HANMO_WORKERS_CHECKPOINT_PICKLE_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "workers/checkpoint/tensor_file.h"

namespace hanmo {

// A value that the pickle builds. Pointers belong to the Pickle that made it; text points into the
// pickled bytes.
struct PickleValue {
  enum class Kind {
    kNone,
    kBool,     // integer
    kInt,      // integer
    kFloat,    // its value is never needed and not kept
    kText,     // text: str or bytes
    kTuple,    // items
    kList,     // items
    kDict,     // items: key, value, key, value … in order of insertion
    kGlobal,   // text: "module name"; one of the known callables or storage classes
    kStorage,  // text: the storage's key in the archive; integer: its elements; type
    kTensor,   // items: {storage}; integer: first element; shape, strides
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  ElementType type = ElementType::kFloat32;
  absl::string_view text;
  std::vector<const PickleValue*> items;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// The outcome of one pickle. Values may contain themselves (a dict that holds itself), so whoever
// walks them bounds the depth.
struct Pickle {
  std::deque<PickleValue> values;
  const PickleValue* root = nullptr;
};

// Bounds on what one pickle may do; a 3.5 B-parameter GPT-2 uses 20,000 operations.
inline constexpr uint64_t kMaxPickleOperations = 4'000'000;
inline constexpr uint64_t kMaxPickleValues = 1'000'000;
inline constexpr uint64_t kMaxPickleText = 64 << 10;  // bytes of one string
inline constexpr uint64_t kMaxPickleMarks = 1'000;    // depth of unfinished containers

// Interprets protocols 2 to 5. INVALID_ARGUMENT for anything else, naming the class or function
// when the pickle asks for one that is not known.
absl::StatusOr<Pickle> ReadPickle(absl::Span<const uint8_t> bytes);

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_PICKLE_H_
