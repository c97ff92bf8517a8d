// The stack machine behind ReadPickle: pickle.cc has its values, containers and memo,
// pickle_calls.cc the few calls that it knows.
#ifndef HANMO_WORKERS_CHECKPOINT_PICKLE_MACHINE_H_
#define HANMO_WORKERS_CHECKPOINT_PICKLE_MACHINE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/pickle.h"

namespace hanmo {

class PickleMachine {
 public:
  explicit PickleMachine(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  absl::StatusOr<Pickle> Run();

 private:
  // Opcodes, named and numbered as in Python's pickletools.
  enum Op : uint8_t {
    kMark = '(',
    kStop = '.',
    kPop = '0',
    kPopMark = '1',
    kDup = '2',
    kBinFloat = 'G',
    kBinInt = 'J',
    kBinInt1 = 'K',
    kBinInt2 = 'M',
    kNone = 'N',
    kBinPersId = 'Q',
    kReduce = 'R',
    kBinString = 'T',
    kShortBinString = 'U',
    kBinUnicode = 'X',
    kAppend = 'a',
    kBuild = 'b',
    kGlobal = 'c',
    kEmptyDict = '}',
    kAppends = 'e',
    kBinGet = 'h',
    kLongBinGet = 'j',
    kEmptyList = ']',
    kBinPut = 'q',
    kLongBinPut = 'r',
    kSetItem = 's',
    kTuple = 't',
    kEmptyTuple = ')',
    kSetItems = 'u',
    kBinBytes = 'B',
    kShortBinBytes = 'C',
    kProto = 0x80,
    kTuple1 = 0x85,
    kTuple2 = 0x86,
    kTuple3 = 0x87,
    kNewTrue = 0x88,
    kNewFalse = 0x89,
    kLong1 = 0x8a,
    kShortBinUnicode = 0x8c,
    kBinUnicode8 = 0x8d,
    kStackGlobal = 0x93,
    kMemoize = 0x94,
    kFrame = 0x95,
  };

  using Kind = PickleValue::Kind;

  static absl::Status Bad(absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("pickle: ", what));
  }

  absl::Status Step(uint8_t op);
  absl::Status StepScalar(uint8_t op);
  absl::Status StepContainer(uint8_t op);
  absl::Status StepMemo(uint8_t op);
  absl::Status StepCall(uint8_t op);

  // Input.
  absl::StatusOr<absl::Span<const uint8_t>> Take(uint64_t size);
  absl::StatusOr<uint64_t> TakeUnsigned(size_t size);
  absl::StatusOr<absl::string_view> TakeLine();
  absl::Status PushText(size_t length_size);
  absl::Status PushLong();

  // Stack.
  absl::StatusOr<PickleValue*> Push(Kind kind);
  absl::StatusOr<PickleValue*> Pop();
  absl::StatusOr<std::vector<PickleValue*>> PopToMark();
  absl::Status PushTuple(size_t count);

  // Memo.
  absl::Status Remember(uint64_t slot);
  absl::Status Recall(uint64_t slot);

  // Calls.
  absl::Status PushGlobal(absl::string_view module, absl::string_view name);
  absl::Status PushStorage();
  absl::Status Reduce();
  absl::Status RebuildTensor(const PickleValue& arguments);

  absl::Span<const uint8_t> bytes_;
  uint64_t at_ = 0;
  Pickle pickle_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  absl::flat_hash_map<uint64_t, PickleValue*> memo_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_PICKLE_MACHINE_H_
