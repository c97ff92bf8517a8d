#include "server/rpc/best_pictures.h"

#include <algorithm>
#include <utility>

namespace hanmo {
namespace {

bool IsBetter(const ScoredPicture& a, const ScoredPicture& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

}  // namespace

BestPictures::~BestPictures() {
  for (const ScoredPicture& picture : best_) pool_->Forget(picture.pixels.rgb.size());
}

absl::Status BestPictures::Add(ScoredPicture picture) {
  if (best_.size() == count_) {
    if (!IsBetter(picture, best_.back())) return absl::OkStatus();
    pool_->Forget(best_.back().pixels.rgb.size());
    best_.pop_back();
  }
  if (!pool_->Keep(picture.pixels.rgb.size())) {
    return absl::ResourceExhaustedError("too many pictures are waiting to be chosen or encoded");
  }
  const auto place = std::upper_bound(best_.begin(), best_.end(), picture, IsBetter);
  best_.insert(place, std::move(picture));
  return absl::OkStatus();
}

std::vector<ScoredPicture> BestPictures::Take() { return std::exchange(best_, {}); }

}  // namespace hanmo
