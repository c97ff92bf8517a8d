#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/checkpoint.h"

namespace hanmo {

WeightScope::WeightScope(Checkpoint& checkpoint)
    : checkpoint_(&checkpoint), status_(std::make_shared<absl::Status>()) {}

WeightScope WeightScope::Sub(absl::string_view part) const {
  WeightScope scope = *this;
  absl::StrAppend(&scope.prefix_, part, ".");
  return scope;
}

WeightScope WeightScope::Sub(absl::string_view part, int64_t index) const {
  return Sub(absl::StrCat(part, ".", index));
}

at::Tensor WeightScope::Take(absl::string_view name, at::IntArrayRef shape) const {
  return TakeAs(name, shape, checkpoint_->options().dtype);
}

at::Tensor WeightScope::TakeAs(absl::string_view name, at::IntArrayRef shape,
                               at::ScalarType dtype) const {
  if (status_->ok()) {
    auto tensor = checkpoint_->TakeAs(absl::StrCat(prefix_, name), shape, dtype);
    if (tensor.ok()) return *std::move(tensor);
    *status_ = std::move(tensor).status();
  }
  return at::zeros({}, at::dtype(dtype).device(checkpoint_->options().device)).expand(shape);
}

bool WeightScope::Has(absl::string_view name) const {
  return checkpoint_->Has(absl::StrCat(prefix_, name));
}

std::vector<int64_t> WeightScope::Shape(absl::string_view name) const {
  auto shape = checkpoint_->Shape(absl::StrCat(prefix_, name));
  if (shape.ok()) return *std::move(shape);
  Fail(std::move(shape).status());
  return {};
}

void WeightScope::Fail(absl::Status status) const {
  if (status_->ok()) *status_ = std::move(status);
}

}  // namespace hanmo
