#include "workers/checkpoint/pickle.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

using Kind = PickleValue::Kind;

struct StorageClass {
  absl::string_view name;
  ElementType type;
};

constexpr StorageClass kStorageClasses[] = {
    {"torch DoubleStorage", ElementType::kFloat64},
    {"torch FloatStorage", ElementType::kFloat32},
    {"torch HalfStorage", ElementType::kFloat16},
    {"torch BFloat16Storage", ElementType::kBFloat16},
    {"torch LongStorage", ElementType::kInt64},
    {"torch IntStorage", ElementType::kInt32},
    {"torch ShortStorage", ElementType::kInt16},
    {"torch CharStorage", ElementType::kInt8},
    {"torch ByteStorage", ElementType::kUint8},
    {"torch BoolStorage", ElementType::kBool},
};

constexpr absl::string_view kOrderedDict = "collections OrderedDict";
constexpr absl::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr absl::string_view kRebuildParameter = "torch._utils _rebuild_parameter";

std::optional<ElementType> StorageType(absl::string_view global) {
  for (const StorageClass& row : kStorageClasses) {
    if (row.name == global) return row.type;
  }
  return std::nullopt;
}

// The known globals as static text, so that values need not own their name.
std::optional<absl::string_view> KnownGlobal(absl::string_view global) {
  for (absl::string_view known : {kOrderedDict, kRebuildTensor, kRebuildParameter}) {
    if (known == global) return known;
  }
  for (const StorageClass& row : kStorageClasses) {
    if (row.name == global) return row.name;
  }
  return std::nullopt;
}

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("pickle: ", what));
}

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

absl::Status PickleMachine::StepCall(uint8_t op) {
  switch (op) {
    case kGlobal: {
      HANMO_ASSIGN_OR_RETURN(const absl::string_view module, TakeLine());
      HANMO_ASSIGN_OR_RETURN(const absl::string_view name, TakeLine());
      return PushGlobal(module, name);
    }
    case kStackGlobal: {
      HANMO_ASSIGN_OR_RETURN(const PickleValue* name, Pop());
      HANMO_ASSIGN_OR_RETURN(const PickleValue* module, Pop());
      if (name->kind != Kind::kText || module->kind != Kind::kText) return Bad("unnamed class");
      return PushGlobal(module->text, name->text);
    }
    case kBinPersId:
      return PushStorage();
    case kReduce:
      return Reduce();
    default: {  // BUILD sets attributes; an OrderedDict's are module versions, which say nothing
      HANMO_RETURN_IF_ERROR(Pop().status());
      HANMO_ASSIGN_OR_RETURN(PickleValue * object, Pop());
      if (object->kind != Kind::kDict) return Bad("attributes for no dict");
      stack_.push_back(object);
      return absl::OkStatus();
    }
  }
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

absl::Status PickleMachine::PushGlobal(absl::string_view module, absl::string_view name) {
  const auto known = KnownGlobal(absl::StrCat(module, " ", name));
  if (!known.has_value()) {
    return Bad(absl::StrCat("refused, because it asks for ",
                            absl::CHexEscape(module.substr(0, 100)), ".",
                            absl::CHexEscape(name.substr(0, 100)),
                            "; only tensors in dicts are read, and nothing is executed"));
  }
  HANMO_ASSIGN_OR_RETURN(PickleValue * global, Push(Kind::kGlobal));
  global->text = *known;
  return absl::OkStatus();
}

// ("storage", <class>, <key>, <device>, <elements>)
absl::Status PickleMachine::PushStorage() {
  HANMO_ASSIGN_OR_RETURN(const PickleValue* id, Pop());
  const auto& items = id->items;
  const bool valid = id->kind == Kind::kTuple && items.size() == 5 &&
                     items[0]->kind == Kind::kText && items[0]->text == "storage" &&
                     items[1]->kind == Kind::kGlobal && items[2]->kind == Kind::kText &&
                     items[4]->kind == Kind::kInt && items[4]->integer >= 0;
  if (!valid) return Bad("a persistent id that is no storage");
  const auto type = StorageType(items[1]->text);
  if (!type.has_value()) return Bad("a storage of no known type");
  HANMO_ASSIGN_OR_RETURN(PickleValue * storage, Push(Kind::kStorage));
  storage->type = *type;
  storage->text = items[2]->text;
  storage->integer = items[4]->integer;
  return absl::OkStatus();
}

absl::Status PickleMachine::Reduce() {
  HANMO_ASSIGN_OR_RETURN(const PickleValue* arguments, Pop());
  HANMO_ASSIGN_OR_RETURN(const PickleValue* callable, Pop());
  if (callable->kind != Kind::kGlobal || arguments->kind != Kind::kTuple) {
    return Bad("a call of no function");
  }
  if (callable->text == kOrderedDict) {
    if (!arguments->items.empty()) return Bad("an OrderedDict with arguments");
    return Push(Kind::kDict).status();
  }
  if (callable->text == kRebuildTensor) return RebuildTensor(*arguments);
  if (callable->text == kRebuildParameter) {  // (tensor, requires_grad, hooks): the tensor as it is
    const auto& items = arguments->items;
    if (items.empty() || items[0]->kind != Kind::kTensor) return Bad("a parameter of no tensor");
    HANMO_ASSIGN_OR_RETURN(PickleValue * parameter, Push(Kind::kTensor));
    *parameter = *items[0];
    return absl::OkStatus();
  }
  return Bad("a call of a storage class");
}

std::optional<std::vector<int64_t>> SizesOf(const PickleValue& tuple) {
  if (tuple.kind != Kind::kTuple || tuple.items.size() > kMaxRank) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const PickleValue* item : tuple.items) {
    if (item->kind != Kind::kInt || item->integer < 0) return std::nullopt;
    sizes.push_back(item->integer);
  }
  return sizes;
}

// (storage, first element, sizes, strides, requires_grad, hooks[, metadata])
absl::Status PickleMachine::RebuildTensor(const PickleValue& arguments) {
  const auto& items = arguments.items;
  if (items.size() < 4 || items[0]->kind != Kind::kStorage || items[1]->kind != Kind::kInt ||
      items[1]->integer < 0) {
    return Bad("a tensor of no storage");
  }
  auto shape = SizesOf(*items[2]);
  auto strides = SizesOf(*items[3]);
  if (!shape.has_value() || !strides.has_value() || shape->size() != strides->size()) {
    return Bad("a tensor of no shape");
  }
  HANMO_ASSIGN_OR_RETURN(PickleValue * tensor, Push(Kind::kTensor));
  tensor->integer = items[1]->integer;
  tensor->items = {items[0]};
  tensor->shape = *std::move(shape);
  tensor->strides = *std::move(strides);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Pickle> ReadPickle(absl::Span<const uint8_t> bytes) {
  return PickleMachine(bytes).Run();
}

}  // namespace hanmo
