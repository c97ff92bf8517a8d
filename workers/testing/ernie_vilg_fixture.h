// The tiny ERNIE-ViLG of tests/goldens/ernie_vilg/whole in an executor, driven as the batcher does.
#ifndef HANMO_WORKERS_TESTING_ERNIE_VILG_FIXTURE_H_
#define HANMO_WORKERS_TESTING_ERNIE_VILG_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "workers/models/testing/golden.h"
#include "workers/torch_executor.h"

namespace hanmo::testing {

class ErnieVilgFixture : public ::testing::Test {
 protected:
  static constexpr char kFolder[] = "tests/goldens/ernie_vilg/whole";
  static constexpr uint32_t kWords = 61, kCodes = 48, kTokens = 15, kWidth = 40, kHeight = 24;
  static constexpr uint32_t kSep = 3, kPad = 0, kBoi = 4, kBot = 5, kPage = 16;

  // What became of one sample.
  struct Outcome {
    absl::Status status;
    std::vector<uint32_t> ids;
    std::vector<float> logprobs;
    std::string rgb;
    std::optional<float> score;
  };

  ErnieVilgFixture();

  // As the model of all samples, in place of the one before.
  absl::Status Load(const std::string& folder);

  std::vector<uint32_t> Ids(const std::string& name);
  std::string Bytes(const std::string& name);

  // Of the golden's picture or text `index`. Greedy unless changed.
  TextJob Painting(const std::string& index);
  TextJob Caption(const std::string& index);
  static TextJob Drawn(TextJob job, uint64_t seed);

  // All jobs in every step that they can share.
  std::vector<Outcome> RunTogether(const std::vector<TextJob>& jobs,
                                   std::vector<Resume> resumes = {}, uint32_t chunk = 512);
  Outcome RunAlone(const TextJob& job, Resume resume = {}, uint32_t chunk = 512) {
    return RunTogether({job}, {std::move(resume)}, chunk)[0];
  }
  // What the first step of a bad job says.
  std::string ErrorOf(const TextJob& job, const Resume& resume = {});

  TorchExecutor executor_;
  Golden golden_;
  LoadedModel loaded_;

 private:
  // A sample on its way, as the batcher sees it.
  struct Runner {
    TextJob job;
    uint32_t known = 0, cached = 0, pages = 0;
    bool ended = false;
    Outcome outcome;
  };
  Row NextRow(Runner& runner, uint32_t chunk);
  static void Take(RowResult& row, Runner& runner);

  uint32_t next_page_ = 0;
};

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_TESTING_ERNIE_VILG_FIXTURE_H_
