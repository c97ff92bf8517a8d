// Recorded tensors for tests, and how closely a result must follow them.
#ifndef HANMO_WORKERS_MODELS_TESTING_GOLDEN_H_
#define HANMO_WORKERS_MODELS_TESTING_GOLDEN_H_

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "workers/checkpoint/checkpoint.h"

namespace hanmo::testing {

// The tensors of one safetensors file, by name, as stored.
class Golden {
 public:
  explicit Golden(const std::string& path) : file_(*Checkpoint::OpenFile(path)) {}

  at::Tensor Get(const std::string& name, at::ScalarType type = at::kFloat) {
    return *file_.TakeAs(name, *file_.Shape(name), type);
  }

 private:
  Checkpoint file_;
};

// The largest difference, relative to the largest recorded magnitude; infinite for other shapes.
inline double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
  const at::Tensor difference = (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max();
  return (difference / expected.to(at::kDouble).abs().max()).item<double>();
}

inline Checkpoint OpenFolder(const std::string& folder, at::ScalarType dtype = at::kFloat) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder, {.dtype = dtype});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

// A model that takes every tensor of its folder.
template <typename Model>
std::unique_ptr<Model> LoadWhole(const std::string& folder, at::ScalarType dtype) {
  Checkpoint checkpoint = OpenFolder(folder, dtype);
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(checkpoint, {});
  EXPECT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(checkpoint.Unused(), ::testing::IsEmpty());
  return *std::move(model);
}

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_MODELS_TESTING_GOLDEN_H_
