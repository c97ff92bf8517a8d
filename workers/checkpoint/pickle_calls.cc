// Of all that a pickle may import and call: what rebuilds a tensor, a parameter or an OrderedDict.
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "workers/checkpoint/pickle_machine.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

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

std::optional<std::vector<int64_t>> SizesOf(const PickleValue& tuple) {
  if (tuple.kind != PickleValue::Kind::kTuple || tuple.items.size() > kMaxRank) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const PickleValue* item : tuple.items) {
    if (item->kind != PickleValue::Kind::kInt || item->integer < 0) return std::nullopt;
    sizes.push_back(item->integer);
  }
  return sizes;
}

}  // namespace

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

}  // namespace hanmo
