#include "workers/checkpoint/pickle.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "workers/checkpoint/pickle_machine.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {

absl::StatusOr<Pickle> PickleMachine::Run() {
  for (uint64_t operations = 0;; ++operations) {
    if (operations == kMaxPickleOperations) return Bad("too many operations");
    HANMO_ASSIGN_OR_RETURN(const uint64_t op, TakeUnsigned(1));
    if (op == kStop) break;
    HANMO_RETURN_IF_ERROR(Step(static_cast<uint8_t>(op)));
  }
  HANMO_ASSIGN_OR_RETURN(pickle_.root, Pop());
  return std::move(pickle_);
}

absl::Status PickleMachine::Step(uint8_t op) {
  switch (op) {
    case kProto: {
      HANMO_ASSIGN_OR_RETURN(const uint64_t protocol, TakeUnsigned(1));
      if (protocol < 2 || protocol > 5) return Bad("protocol is not 2 to 5");
      return absl::OkStatus();
    }
    case kFrame:
      return TakeUnsigned(8).status();  // a hint for readers of streams
    case kNone:
    case kNewTrue:
    case kNewFalse:
    case kBinInt:
    case kBinInt1:
    case kBinInt2:
    case kLong1:
    case kBinFloat:
    case kShortBinString:
    case kShortBinUnicode:
    case kShortBinBytes:
    case kBinString:
    case kBinUnicode:
    case kBinBytes:
    case kBinUnicode8:
      return StepScalar(op);
    case kMark:
    case kPop:
    case kPopMark:
    case kDup:
    case kEmptyTuple:
    case kTuple:
    case kTuple1:
    case kTuple2:
    case kTuple3:
    case kEmptyList:
    case kAppend:
    case kAppends:
    case kEmptyDict:
    case kSetItem:
    case kSetItems:
      return StepContainer(op);
    case kBinPut:
    case kLongBinPut:
    case kMemoize:
    case kBinGet:
    case kLongBinGet:
      return StepMemo(op);
    case kGlobal:
    case kStackGlobal:
    case kBinPersId:
    case kReduce:
    case kBuild:
      return StepCall(op);
    default:
      return Bad(absl::StrCat("operation 0x", absl::Hex(op), " is not part of a state dict"));
  }
}

absl::Status PickleMachine::StepScalar(uint8_t op) {
  switch (op) {
    case kNone:
      return Push(Kind::kNone).status();
    case kLong1:
      return PushLong();
    case kShortBinString:
    case kShortBinUnicode:
    case kShortBinBytes:
      return PushText(1);
    case kBinString:
    case kBinUnicode:
    case kBinBytes:
      return PushText(4);
    case kBinUnicode8:
      return PushText(8);
    case kBinFloat: {
      HANMO_RETURN_IF_ERROR(Take(8).status());
      return Push(Kind::kFloat).status();
    }
    case kNewTrue:
    case kNewFalse: {
      HANMO_ASSIGN_OR_RETURN(PickleValue * value, Push(Kind::kBool));
      value->integer = op == kNewTrue;
      return absl::OkStatus();
    }
    default: {
      const size_t size = op == kBinInt ? 4 : op == kBinInt2 ? 2 : 1;
      HANMO_ASSIGN_OR_RETURN(const uint64_t number, TakeUnsigned(size));
      HANMO_ASSIGN_OR_RETURN(PickleValue * value, Push(Kind::kInt));
      value->integer = op == kBinInt ? static_cast<int32_t>(number) : static_cast<int64_t>(number);
      return absl::OkStatus();
    }
  }
}

absl::Status PickleMachine::StepContainer(uint8_t op) {
  switch (op) {
    case kMark: {
      if (marks_.size() == kMaxPickleMarks) return Bad("nested too deeply");
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    }
    case kPop:
      return Pop().status();
    case kPopMark:
      return PopToMark().status();
    case kDup: {
      HANMO_ASSIGN_OR_RETURN(PickleValue * value, Pop());
      stack_.insert(stack_.end(), 2, value);
      return absl::OkStatus();
    }
    case kEmptyList:
      return Push(Kind::kList).status();
    case kEmptyDict:
      return Push(Kind::kDict).status();
    case kEmptyTuple:
      return Push(Kind::kTuple).status();
    case kTuple1:
    case kTuple2:
    case kTuple3:
      return PushTuple(op - kTuple1 + 1);
    case kTuple: {
      HANMO_ASSIGN_OR_RETURN(auto items, PopToMark());
      HANMO_ASSIGN_OR_RETURN(PickleValue * tuple, Push(Kind::kTuple));
      tuple->items.assign(items.begin(), items.end());
      return absl::OkStatus();
    }
    default:
      break;
  }
  std::vector<PickleValue*> items;
  if (op == kAppends || op == kSetItems) {
    HANMO_ASSIGN_OR_RETURN(items, PopToMark());
  } else {
    items.resize(op == kAppend ? 1 : 2);
    for (size_t i = items.size(); i-- > 0;) {
      HANMO_ASSIGN_OR_RETURN(items[i], Pop());
    }
  }
  const bool list = op == kAppend || op == kAppends;
  if (!list && items.size() % 2 != 0) return Bad("a key without a value");
  HANMO_ASSIGN_OR_RETURN(PickleValue * container, Pop());
  if (container->kind != (list ? Kind::kList : Kind::kDict)) return Bad("items for no container");
  container->items.insert(container->items.end(), items.begin(), items.end());
  stack_.push_back(container);
  return absl::OkStatus();
}

absl::Status PickleMachine::StepMemo(uint8_t op) {
  if (op == kMemoize) return Remember(memo_.size());
  const size_t size = op == kLongBinPut || op == kLongBinGet ? 4 : 1;
  HANMO_ASSIGN_OR_RETURN(const uint64_t slot, TakeUnsigned(size));
  return op == kBinPut || op == kLongBinPut ? Remember(slot) : Recall(slot);
}

absl::StatusOr<absl::Span<const uint8_t>> PickleMachine::Take(uint64_t size) {
  if (size > bytes_.size() - at_) return Bad("torn: it ends in the middle");
  const auto taken = bytes_.subspan(at_, size);
  at_ += size;
  return taken;
}

absl::StatusOr<uint64_t> PickleMachine::TakeUnsigned(size_t size) {
  HANMO_ASSIGN_OR_RETURN(const auto raw, Take(size));
  uint64_t value = 0;
  std::memcpy(&value, raw.data(), size);
  return value;
}

absl::StatusOr<absl::string_view> PickleMachine::TakeLine() {
  const auto rest = bytes_.subspan(at_);
  const auto end =
      std::find(rest.begin(), rest.begin() + std::min(rest.size(), kMaxPickleText), '\n');
  if (end == rest.end() || *end != '\n') return Bad("a name does not end");
  const absl::string_view line(reinterpret_cast<const char*>(rest.data()), end - rest.begin());
  at_ += line.size() + 1;
  return line;
}

absl::Status PickleMachine::PushText(size_t length_size) {
  HANMO_ASSIGN_OR_RETURN(const uint64_t length, TakeUnsigned(length_size));
  if (length > kMaxPickleText) return Bad("text too long");
  HANMO_ASSIGN_OR_RETURN(const auto raw, Take(length));
  HANMO_ASSIGN_OR_RETURN(PickleValue * value, Push(Kind::kText));
  value->text = {reinterpret_cast<const char*>(raw.data()), raw.size()};
  return absl::OkStatus();
}

absl::Status PickleMachine::PushLong() {
  HANMO_ASSIGN_OR_RETURN(const uint64_t size, TakeUnsigned(1));
  HANMO_ASSIGN_OR_RETURN(const auto raw, Take(size));
  if (size > 8) return Bad("an integer above 64 bits");
  uint64_t number = size > 0 && raw.back() >= 0x80 ? ~uint64_t{0} : 0;  // two's complement
  std::memcpy(&number, raw.data(), size);
  HANMO_ASSIGN_OR_RETURN(PickleValue * value, Push(Kind::kInt));
  value->integer = static_cast<int64_t>(number);
  return absl::OkStatus();
}

absl::StatusOr<PickleValue*> PickleMachine::Push(Kind kind) {
  if (pickle_.values.size() == kMaxPickleValues) return Bad("too many values");
  PickleValue* value = &pickle_.values.emplace_back();
  value->kind = kind;
  stack_.push_back(value);
  return value;
}

absl::StatusOr<PickleValue*> PickleMachine::Pop() {
  const size_t floor = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() <= floor) return Bad("nothing left on the stack");
  PickleValue* value = stack_.back();
  stack_.pop_back();
  return value;
}

absl::StatusOr<std::vector<PickleValue*>> PickleMachine::PopToMark() {
  if (marks_.empty()) return Bad("no mark on the stack");
  const auto first = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
  std::vector<PickleValue*> items(first, stack_.end());
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

absl::Status PickleMachine::PushTuple(size_t count) {
  std::vector<const PickleValue*> items(count);
  for (size_t i = count; i-- > 0;) {
    HANMO_ASSIGN_OR_RETURN(items[i], Pop());
  }
  HANMO_ASSIGN_OR_RETURN(PickleValue * tuple, Push(Kind::kTuple));
  tuple->items = std::move(items);
  return absl::OkStatus();
}

absl::Status PickleMachine::Remember(uint64_t slot) {
  HANMO_ASSIGN_OR_RETURN(PickleValue * value, Pop());
  stack_.push_back(value);
  memo_[slot] = value;
  return absl::OkStatus();
}

absl::Status PickleMachine::Recall(uint64_t slot) {
  const auto it = memo_.find(slot);
  if (it == memo_.end()) return Bad("an unknown memo");
  stack_.push_back(it->second);
  return absl::OkStatus();
}

absl::StatusOr<Pickle> ReadPickle(absl::Span<const uint8_t> bytes) {
  return PickleMachine(bytes).Run();
}

}  // namespace hanmo
