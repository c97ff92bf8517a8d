// The part of a call that has to do with pictures: the one that texts are about is decoded, those
// that are painted are encoded, all on the media pool.
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/batcher/clock.h"
#include "server/rpc/generation_call.h"
#include "server/rpc/token_pictures.h"

namespace hanmo {

void GenerationCall::DecodePictureLater() {
  auto self = shared_from_this();
  const bool taken = server_.media_pool->Submit(proto_.ByteSizeLong(), [self] {
    // Decoding takes long enough to ask.
    absl::Status status = self->cancelled_ ? absl::CancelledError("cancelled by the client")
                                           : ReadPicture(self->proto_, &self->plan_);
    if (!status.ok()) return self->OnDone(status, {});
    // The file may be large, and the request may wait for long.
    self->proto_.mutable_parts()->mutable_parts(0)->mutable_picture()->clear_data();
    self->Tokenize();
  });
  if (!taken) OnDone(absl::ResourceExhaustedError("too many pictures are waiting to be read"), {});
}

void GenerationCall::OnPicture(uint32_t index, Pixels pixels, std::optional<float> score) {
  if (span_ != nullptr) painted_ = SteadyNow();
  server_.figures->PicturePainted(plan_.model->spec.id, uint64_t{pixels.width} * pixels.height);
  if (best_.has_value()) {
    const auto status = best_->Add({index, score.value_or(-1), std::move(pixels)});
    if (!status.ok()) Fail(status);
    return;
  }
  if (!server_.media_pool->Keep(pixels.rgb.size())) {
    return Fail(absl::ResourceExhaustedError("too many pictures are waiting to be encoded"));
  }
  EncodeLater(index, std::move(pixels));
}

void GenerationCall::EncodeBest() {
  std::vector<ScoredPicture> best = best_->Take();
  google::protobuf::RepeatedPtrField<hanmo::v1::Output> outputs;
  for (const ScoredPicture& picture : best) {
    hanmo::v1::Output* output = outputs.Add();
    output->Swap(response_.mutable_outputs(static_cast<int>(picture.index)));
    output->mutable_picture()->set_score(picture.score);
  }
  response_.mutable_outputs()->Swap(&outputs);
  for (uint32_t place = 0; place < best.size(); ++place) {
    EncodeLater(place, std::move(best[place].pixels));
  }
}

void GenerationCall::EncodeLater(uint32_t place, Pixels pixels) {
  parties_.fetch_add(1, std::memory_order_relaxed);
  const size_t weight = pixels.rgb.size();
  auto self = shared_from_this();
  auto shared = std::make_shared<Pixels>(std::move(pixels));
  server_.media_pool->SubmitKept(weight, [self, place, shared] {
    self->EncodePictureAt(place, *shared);
    self->Release();
  });
}

void GenerationCall::EncodePictureAt(uint32_t place, const Pixels& pixels) {
  if (cancelled_) return Fail(absl::CancelledError("cancelled by the client"));
  PixelsReady(place, pixels);
  std::string file;
  if (wants_files()) {
    const absl::Time start = SteadyNow();
    auto encoded = EncodePicture(pixels, plan_.encode);
    if (!encoded.ok()) return Fail(encoded.status());
    file = *std::move(encoded);
    const absl::Time end = SteadyNow();
    server_.figures->ObservePhase(plan_.model->spec.id, FrontPhase::kPictureEncode, end - start);
    absl::MutexLock lock(&mu_);
    encoding_ = std::min(encoding_, start);
    encoded_ = std::max(encoded_, end);
  }
  hanmo::v1::Output* output = response_.mutable_outputs(static_cast<int>(place));
  output->mutable_picture()->set_width(pixels.width);
  output->mutable_picture()->set_height(pixels.height);
  PictureReady(output, std::move(file));
}

void GenerationCall::EncodePreview(Pixels pixels, std::function<void(std::string)> task) {
  auto self = shared_from_this();
  const size_t weight = pixels.rgb.size();
  // Until it is encoded a preview is a party, so that the final event comes after it.
  parties_.fetch_add(1, std::memory_order_relaxed);
  const bool taken = server_.media_pool->Submit(
      weight, [self, pixels = std::move(pixels), task = std::move(task)] {
        auto file = self->cancelled_ ? absl::StatusOr<std::string>(absl::CancelledError())
                                     : EncodePicture(pixels, {PictureEncoding::kJpeg, 80, ""});
        if (file.ok()) {
          self->NoteFirstPreview();
          task(*std::move(file));
        }
        self->Release();
      });
  if (taken) return;
  PreviewDropped();
  Release();
}

void GenerationCall::NoteFirstPreview() {
  if (previewed_.exchange(true)) return;
  server_.figures->ObservePhase(plan_.model->spec.id, FrontPhase::kFirstPreview,
                                SteadyNow() - arrival_);
}

void GenerationCall::PreviewDropped() { server_.figures->PreviewDropped(plan_.model->spec.id); }

}  // namespace hanmo
