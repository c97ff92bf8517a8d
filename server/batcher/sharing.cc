// Work that texts save: pages that begin like another text's, and guesses at what follows.
#include <algorithm>

#include "absl/hash/hash.h"
#include "server/batcher/core.h"

namespace hanmo {
namespace {

uint32_t PagesFor(size_t tokens, uint32_t page_tokens) {
  if (page_tokens == 0) return 0;  // no text model: the worker will say so
  return static_cast<uint32_t>((tokens + page_tokens - 1) / page_tokens);
}

// The sample's token at this position, prompt and emitted ones.
uint32_t TokenAt(const Sample& sample, size_t position) {
  const std::vector<uint32_t>& prompt = sample.text()->prompt;
  return position < prompt.size() ? prompt[position] : sample.emitted[position - prompt.size()];
}

size_t KnownTokens(const Sample& sample) {
  return sample.text()->prompt.size() + sample.emitted.size();
}

// Positions that are ever run: the last token needs none.
size_t MostPositions(const TextJob& job) { return job.prompt.size() + job.max_tokens - 1; }

// Positions that must have pages when the sample begins. The tokens of a picture lie in other
// orders in some layers, so that its first row may be written to any of its pages.
size_t FirstPositions(const Sample& sample) {
  const TextJob& job = *sample.text();
  return job.paints() ? MostPositions(job) : KnownTokens(sample);
}

// Pages that others could use: of a source those before its target.
bool MayPublish(const Sample& sample, size_t tokens, uint32_t page_tokens) {
  const TextJob& job = *sample.text();
  return job.source_tokens == 0 || tokens <= PaddedSource(job, page_tokens);
}

}  // namespace

uint64_t SaltOf(const std::string& tenant, const SampleJob& job) {
  // Tenants whose salts meet would see that another has sent the same tokens, but get no wrong
  // ones.
  const TextJob* text = std::get_if<TextJob>(&job);
  if (text == nullptr || text->source_tokens == 0) return absl::HashOf(tenant);
  const auto& picture = text->picture.rgb;
  return absl::HashOf(tenant, text->source_tokens, text->prompt,
                      picture == nullptr ? std::string_view() : std::string_view(*picture));
}

absl::Span<const uint32_t> Batcher::Core::Known(const Sample& sample) {
  if (sample.emitted.empty()) return sample.text()->prompt;
  known_ = sample.text()->prompt;
  known_.insert(known_.end(), sample.emitted.begin(), sample.emitted.end());
  return known_;
}

PagePool::Match Batcher::Core::FindPrefix(const Residence& home, const Sample& sample) {
  if (!home.pages.publishes()) return {};
  return home.pages.Find(sample.request->salt, Known(sample));
}

bool Batcher::Core::HasPages(const ActiveWorker& worker, const Residence& home,
                             const Sample& sample) {
  if (home.aboard == 0) return true;
  // A spare page for each text aboard: whoever comes in must not push another out at once.
  if (home.pages.free() <= home.aboard) return false;
  const PagePool::Match match = FindPrefix(home, sample);
  const size_t positions = std::max(FirstPositions(sample), KnownTokens(sample) + 1);
  const uint32_t missing = PagesFor(positions, home.capacity.page_tokens) - match.pages;
  return home.pages.free() >= missing + match.idle + home.aboard &&
         !IsBeingPrefilled(worker, home, sample, match.pages);
}

bool Batcher::Core::IsBeingPrefilled(const ActiveWorker& worker, const Residence& home,
                                     const Sample& sample, size_t page) const {
  const uint32_t size = home.capacity.page_tokens;
  if (!home.pages.publishes() || KnownTokens(sample) <= (page + 1) * size) return false;
  // Who is not in the batch when it is closed would wait for its end.
  if (options_.policy.policy == Policy::kStatic) return false;
  return std::any_of(worker.aboard.begin(), worker.aboard.end(), [&](const Sample* other) {
    if (other->text() == nullptr || other->request->model != sample.request->model ||
        other->request->salt != sample.request->salt || other->parked() || other->suspect() ||
        other->table.published.size() != page || other->known_tokens < (page + 1) * size ||
        other->cached >= (page + 1) * size || !GoesBefore(other, &sample)) {
      return false;
    }
    for (size_t i = 0; i < (page + 1) * size; ++i) {
      if (TokenAt(*other, i) != TokenAt(sample, i)) return false;
    }
    return true;
  });
}

double Batcher::Core::PrefillSeconds(const ActiveWorker& worker, const Residence& home,
                                     const Sample& sample) {
  if (sample.text() == nullptr || !home.pages.publishes()) return 0;
  const size_t shared = size_t{FindPrefix(home, sample).pages} * home.capacity.page_tokens;
  const StepLoad load{0, static_cast<uint32_t>(KnownTokens(sample) - shared)};
  return absl::ToDoubleSeconds(
      worker.costs->Predict({sample.request->model, StepKind::kText, 0, 0}, load));
}

void Batcher::Core::TakeFirstPages(Sample* sample) {
  Residence& home = *sample->home;
  sample->known_tokens = static_cast<uint32_t>(KnownTokens(*sample));
  uint32_t shared = 0;
  if (home.pages.publishes()) {
    shared = home.pages.Share(sample->request->salt, Known(*sample), &sample->table);
  }
  home.pages.Take(PagesFor(FirstPositions(*sample), home.capacity.page_tokens) - shared,
                  &sample->table);
  const uint32_t cached = shared * home.capacity.page_tokens;
  sample->planned_cached = sample->cached = cached;
  if (cached == 0) return;
  ActiveRequest& request = *sample->request;
  observer_.OnPrefixHit(request.model, cached);
  // What it finds of its own later is no merit of others.
  if (request.started || sample->index > 0) return;
  request.usage.cached_prompt_tokens =
      std::min(cached, static_cast<uint32_t>(sample->text()->prompt.size()));
}

void Batcher::Core::PublishPages(Sample* sample) {
  Residence& home = *sample->home;
  const size_t size = home.capacity.page_tokens;
  std::vector<uint32_t>& published = sample->table.published;
  if (!home.pages.publishes() || sample->cached < (published.size() + 1) * size) return;
  while (sample->cached >= (published.size() + 1) * size &&
         MayPublish(*sample, (published.size() + 1) * size, size)) {
    const size_t before = published.size();
    known_.clear();
    for (size_t i = 0; i < size; ++i) known_.push_back(TokenAt(*sample, before * size + i));
    home.pages.Publish(sample->request->salt, known_, &sample->table);
    if (published.size() == before) return;
  }
  // Who waits for these pages may begin.
  if (sample->cached <= sample->known_tokens) models_[sample->request->model].stirred = true;
}

uint32_t Batcher::Core::GrantDrafts(Sample* sample) {
  Residence& home = *sample->home;
  const size_t page_tokens = home.capacity.page_tokens;
  if (options_.speculative_tokens == 0 || page_tokens == 0 || sample->suspect()) return 0;
  if (sample->text()->source_tokens > 0) return 0;  // pictures and captions repeat nothing
  const size_t first = sample->planned_cached + sample->planned_drafts + 1;
  const size_t wanted =
      std::min(first + options_.speculative_tokens, MostPositions(*sample->text()));
  std::vector<uint32_t>& pages = sample->table.pages;
  // A guess is worth a free page, not another's.
  while (pages.size() * page_tokens < wanted && home.pages.free() > home.aboard) {
    home.pages.Take(1, &sample->table);
  }
  const size_t positions = std::min(wanted, pages.size() * page_tokens);
  return positions > first ? static_cast<uint32_t>(positions - first) : 0;
}

bool Batcher::Core::TakePages(Sample* sample) {
  Residence& home = *sample->home;
  const size_t page_tokens = home.capacity.page_tokens;
  if (page_tokens == 0) return true;
  // The steps under way run up to so many positions, and this one one more.
  const size_t positions = std::min<size_t>(sample->planned_cached + sample->planned_drafts + 1,
                                            MostPositions(*sample->text()));
  const auto& aboard = sample->worker->aboard;
  const auto has_pages = [&](const Sample* s) {
    return s == sample || (s->request->model == sample->request->model && !s->table.pages.empty());
  };
  const auto idles = [&](const Sample* s) { return s->parked() && has_pages(s); };
  while (sample->table.pages.size() * page_tokens < positions) {
    if (home.pages.Take(1, &sample->table)) continue;
    // Of those whose reader is slow, else of all, the youngest is recomputed later.
    auto victim = std::find_if(aboard.rbegin(), aboard.rend(), idles);
    if (victim == aboard.rend()) victim = std::find_if(aboard.rbegin(), aboard.rend(), has_pages);
    Sample* leaving = *victim;
    Leave(leaving);
    Return(leaving);
    observer_.OnPreempted(leaving->request->model);
    if (leaving == sample) return false;
  }
  return true;
}

}  // namespace hanmo
